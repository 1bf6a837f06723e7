//! Real huntlog clusters on this machine, started, killed and restarted by
//! tests and harnesses.

mod cluster;
mod config;
mod disk;
mod injection;
mod node;
mod throttle;

pub use cluster::{Cluster, ClusterError, channel};
pub use config::NodeSpec;
pub use disk::{DiskError, LoopDisk};
pub use injection::Injection;
pub use node::{NodeProcess, ProcessError, binary};
pub use throttle::Throttle;
