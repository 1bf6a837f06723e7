//! Real huntlog clusters on this machine, started, killed and restarted by
//! tests and harnesses; the histories of what they did, and the checkers that
//! judge them.

pub mod check;
pub mod cli;
mod cluster;
mod config;
mod disk;
pub mod history;
mod injection;
pub mod memory;
mod node;
pub mod sim;
mod throttle;

pub use cluster::{Cluster, ClusterError, channel};
pub use config::NodeSpec;
pub use disk::{DiskError, LoopDisk};
pub use injection::Injection;
pub use node::{NodeProcess, ProcessError, binary};
pub use throttle::Throttle;
