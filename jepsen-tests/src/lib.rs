//! Real huntlog clusters on this machine, started, killed and restarted by
//! tests and harnesses; the histories of what they did, and the checkers that
//! judge them.

mod answers;
pub mod check;
pub mod cli;
mod cluster;
mod command;
mod config;
mod disk;
pub mod history;
mod injection;
mod interrupt;
mod lock;
pub mod memory;
mod metrics;
mod network;
mod node;
pub mod run;
pub mod sim;
mod throttle;
pub mod upgrade;

pub use cluster::{Cluster, ClusterError, channel};
pub use command::CommandError;
pub use config::NodeSpec;
pub use disk::{DiskError, LoopDisk};
pub use injection::Injection;
pub use interrupt::{Interrupted, Interrupts};
pub use network::{Network, NetworkError, Rule};
pub use node::{NodeProcess, OPENRAFT_CORE_ENDED, ProcessError, binary};
pub use throttle::Throttle;
