//! Real clusters: what is acknowledged stays, whatever dies.

mod answers;
mod disk_faults;
mod failover;
mod power_loss;
mod recorded_hunt;
mod standard;
mod startup;
mod support;
