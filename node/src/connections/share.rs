//! What one client connection may have in flight, so that one client can not
//! take all of a node's budget (I11).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::limits;

/// The appends of one connection that are not answered yet.
#[derive(Debug, Clone, Default)]
pub(crate) struct ConnectionShare {
    in_flight_bytes: Arc<AtomicUsize>,
}

/// A connection has as much in flight as it may.
#[derive(Debug)]
pub(crate) struct ShareUsedUp;

/// An append that counts in its connection's share until this is dropped.
#[derive(Debug)]
pub(crate) struct Counted {
    share: ConnectionShare,
    bytes: usize,
}

impl ConnectionShare {
    /// Counts an append of `bytes`. One that begins below the limit may exceed
    /// it: the largest batch is always admissible.
    pub(crate) fn count(&self, bytes: usize) -> Result<Counted, ShareUsedUp> {
        let bytes = bytes.max(limits::IN_FLIGHT_BYTES_PER_APPEND_MIN);
        let counted = |in_flight: usize| {
            (in_flight < limits::IN_FLIGHT_BYTES_PER_CONNECTION_MAX).then_some(in_flight + bytes)
        };
        self.in_flight_bytes
            .try_update(Ordering::Relaxed, Ordering::Relaxed, counted)
            .map_err(|_| ShareUsedUp)?;
        Ok(Counted {
            share: self.clone(),
            bytes,
        })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.share
            .in_flight_bytes
            .fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = limits::IN_FLIGHT_BYTES_PER_CONNECTION_MAX;

    #[test]
    fn a_connection_is_refused_what_is_beyond_its_share() {
        let share = ConnectionShare::default();
        let first = share.count(MAX - 1).expect("there is room");
        // The largest batch is admissible whatever is in flight below the limit.
        let second = share.count(limits::CLIENT_MESSAGE_BYTES_MAX).expect("room");
        assert!(share.count(1).is_err(), "the share is used up");
        drop(first);
        share.count(1).expect("room again");
        drop(second);
        assert_eq!(share.in_flight_bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn many_small_appends_count_more_than_their_bytes() {
        let share = ConnectionShare::default();
        let all: Vec<_> = std::iter::from_fn(|| share.count(1).ok()).collect();
        assert_eq!(all.len(), MAX / limits::IN_FLIGHT_BYTES_PER_APPEND_MIN);
    }
}
