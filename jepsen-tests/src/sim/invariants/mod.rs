//! What must hold in every world, beyond what the clients' history can tell
//! (that is [`crate::check`]'s): one file for each, citing its source.

mod bounded;
mod durable;
mod leaders_rise;
mod levels_rise;
mod loud;
mod remembered;
mod retained;
mod same_state;

pub(super) use bounded::bounded;
pub(super) use durable::{Held, durable};
pub(super) use leaders_rise::LeadersRise;
pub(super) use levels_rise::LevelsRise;
pub(super) use loud::{Explained, Known, loud};
pub(super) use remembered::Remembered;
pub(super) use retained::{Kept, covered, retained};
pub(super) use same_state::SameState;

/// What a node said of itself.
#[derive(Debug, Clone, Default)]
pub(super) struct Said {
    pub(super) node: u64,
    pub(super) term: u64,
    /// Who leads, itself perhaps; 0 when it knows of nobody.
    pub(super) leader: u64,
    /// The last log index that has a digest, and the digest; 0 and empty when
    /// nothing is applied.
    pub(super) applied: u64,
    pub(super) digest: Vec<u8>,
    /// The feature level in force at `applied`.
    pub(super) level: u32,
}
