//! The chain of digests by which replicas find out that they differ.
//!
//! Each applied entry's digest covers the one before, the entry's log id and
//! what applying it decided. Two replicas with equal digests at an index have
//! decided everything up to there alike (I7).

use crate::LogId;
use std::fmt;
use xxhash_rust::xxh3::xxh3_128;

/// 128 bits of XXH3. It guards against divergence and damage, not against an
/// adversary, who would need to be a member of the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Digest(pub [u8; 16]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a node's machine has come to at a log index: its leader stamps one on
/// each entry, and each replica compares it with its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DigestCheck {
    /// The log index the digest belongs to.
    pub index: u64,
    /// The digest after applying it.
    pub digest: Digest,
}

impl Digest {
    /// The digest after an entry: `covered` starts with room for the previous
    /// digest and the log id, followed by what the entry decided.
    pub(crate) fn chain(self, log_id: LogId, covered: &mut [u8]) -> Self {
        let (head, _) = covered.split_at_mut(Self::HEAD_BYTES);
        head[..16].copy_from_slice(&self.0);
        head[16..24].copy_from_slice(&log_id.term.to_le_bytes());
        head[24..32].copy_from_slice(&log_id.node_id.to_le_bytes());
        head[32..].copy_from_slice(&log_id.index.to_le_bytes());
        Self(xxh3_128(covered).to_le_bytes())
    }

    /// What [`chain`](Self::chain) fills in itself.
    pub(crate) const HEAD_BYTES: usize = 40;
}
