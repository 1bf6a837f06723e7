//! huntlog's server: a Raft-replicated event log for treasure hunts.
//!
//! `node/ARCHITECTURE.md` draws the map of these modules. Dependencies point
//! one way: api -> partition -> raft -> machine; api and raft's network -> wire
//! formats -> proto; raft -> storage.

pub mod admin_http;
pub mod api;
mod blocking;
pub mod cli;
pub mod cluster;
pub mod config;
mod connections;
pub mod host;
pub mod limits;
mod listeners;
pub mod partition;
pub mod raft;
pub mod server;
mod storage_metrics;
pub mod telemetry;
pub mod wire;
