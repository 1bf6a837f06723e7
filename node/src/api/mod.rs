//! The public services: thin handlers over the partitions.
//!
//! Any node takes any request. Reads are answered here; writes go to the leader,
//! one hop at most. Every failure becomes a status in one place, [`status`].

mod admin_service;
mod append;
mod append_stream;
mod call;
mod context;
mod delivery;
mod error;
mod event_service;
mod follow;
mod forward;
mod forward_guard;
mod forward_read;
mod hunt_service;
mod member_calls;
mod message_budget;
mod reading;
mod replica_status;
mod rpc_layer;
pub mod status;

pub use admin_service::AdminApi;
pub use append_stream::AppendStream;
pub use context::{NodeContext, NodeInfo, ServingState};
pub use delivery::DeliveryStream;
pub use error::ApiError;
pub use event_service::EventApi;
pub use forward_guard::ForwardGuard;
pub use hunt_service::HuntApi;
pub use rpc_layer::RpcLayer;

#[cfg(test)]
mod scripted_leader;
#[cfg(test)]
mod service_tests;
