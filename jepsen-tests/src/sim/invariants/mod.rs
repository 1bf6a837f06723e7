//! What must hold in every world, beyond what the clients' history can tell
//! (that is [`crate::check`]'s): one file for each, citing its source.

mod bounded;
mod durable;
mod leaders_rise;
mod loud;
mod same_state;

pub(super) use bounded::bounded;
pub(super) use durable::{Held, durable};
pub(super) use leaders_rise::LeadersRise;
pub(super) use loud::{Stop, loud};
pub(super) use same_state::SameState;

/// What a node said of itself.
#[derive(Debug, Clone, Default)]
pub(super) struct Said {
    pub(super) node: u64,
    pub(super) term: u64,
    /// Who leads, itself perhaps; 0 when it knows of nobody.
    pub(super) leader: u64,
    /// The last applied log index, and the digest there; empty when nothing is.
    pub(super) applied: u64,
    pub(super) digest: Vec<u8>,
}
