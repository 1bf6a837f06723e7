//! Real clusters: what is acknowledged stays, whatever dies.

mod answers;
mod catch_up;
mod clocks;
mod damage;
mod digests;
mod disk_faults;
mod failover;
mod hostile;
mod members;
mod paused_nodes;
mod power_loss;
mod python_client;
mod recorded_hunt;
mod standard;
mod startup;
mod strangers;
mod subscribing;
mod support;
mod two_clusters;
mod upgrade;
mod walkthrough;
