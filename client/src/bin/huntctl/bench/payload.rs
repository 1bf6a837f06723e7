//! The events a benchmark appends.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use huntlog_client::{event, proto};

/// What a stamped payload begins with: the run and the time.
pub const STAMP_BYTES: usize = 16;

/// The custom type of the events.
pub const TYPE: &str = "load";

/// Names that the events are spread over where no players are registered.
const UNKNOWN_PLAYERS: u32 = 1_000;

/// The players of each hunt: as many as are registered, or some that are not.
pub fn players(registered: u32) -> impl Iterator<Item = String> + Clone {
    let count = match registered {
        0 => UNKNOWN_PLAYERS,
        count => count,
    };
    (0..count).map(|n| format!("player-{n:03}"))
}

/// Makes the events of one benchmark.
#[derive(Debug)]
pub struct Payloads {
    hunts: Vec<String>,
    players: Vec<String>,
    batch: usize,
    filler: Bytes,
    /// Tells the events of this run from others, when they are stamped.
    run: Option<u64>,
}

impl Payloads {
    /// Batches of so many events in these hunts, of so many registered players each; those of a
    /// `run` carry when they were due.
    pub fn new(
        hunts: Vec<String>,
        registered: u32,
        batch: u16,
        event_bytes: u32,
        run: Option<u64>,
    ) -> Self {
        // No two neighbouring bytes alike, whatever a file system makes of it.
        let filler = (0..event_bytes).map(|at| (at * 131 % 251).to_le_bytes()[0]);
        Self {
            hunts,
            players: players(registered).collect(),
            batch: usize::from(batch),
            filler: filler.collect(),
            run,
        }
    }

    /// The events of a session's request that was due at this time since the
    /// run's origin. The first carries the time.
    pub fn batch(&self, request: u64, session: usize, due: Duration) -> Vec<proto::Event> {
        let count = self.hunts.len() as u64;
        let first = usize::try_from(request % count).expect("below a length");
        // In time every player of every hunt has a turn.
        let turn = session as u64 + request / count;
        let turn = usize::try_from(turn % self.players.len() as u64).expect("below a length");
        let player = &self.players[turn];
        let hunts = self.hunts.iter().cycle().skip(first);
        let mut events: Vec<_> = hunts
            .take(self.batch)
            .map(|hunt| event::custom(hunt, player, TYPE, self.filler.clone()))
            .collect();
        if let Some(run) = self.run {
            let mut payload = BytesMut::with_capacity(self.filler.len());
            payload.put_u64_le(run);
            payload.put_u64_le(u64::try_from(due.as_nanos()).unwrap_or(u64::MAX));
            payload.put_slice(&self.filler[STAMP_BYTES..]);
            events[0] = event::custom(&self.hunts[first], player, TYPE, payload);
        }
        events
    }
}

/// When a committed event of this run was due, since the run's origin; `None`
/// when it is of something else, or of a batch whose first event has the stamp.
pub fn due_of(run: u64, event: &proto::CommittedEvent) -> Option<Duration> {
    let proto::event::Kind::Custom(custom) = event.event.as_ref()?.kind.as_ref()? else {
        return None;
    };
    let (stamped_run, rest) = custom.payload.split_first_chunk()?;
    let due = rest.first_chunk()?;
    let ours = custom.r#type == TYPE && u64::from_le_bytes(*stamped_run) == run;
    ours.then(|| Duration::from_nanos(u64::from_le_bytes(*due)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn committed(event: proto::Event) -> proto::CommittedEvent {
        proto::CommittedEvent {
            event: Some(event),
            ..Default::default()
        }
    }

    #[test]
    fn the_first_event_of_a_batch_says_when_it_was_due() {
        let hunts = vec!["a".to_owned(), "b".to_owned()];
        let due = Duration::from_micros(1_234_567);
        let payloads = |run| Payloads::new(hunts.clone(), 0, 3, 256, run);
        let events = payloads(Some(7)).batch(1, 0, due);
        let names: Vec<_> = events.iter().map(|event| event.hunt.as_str()).collect();
        assert_eq!(names, ["b", "a", "b"]);
        let stamps = |run| {
            let events = events.clone().into_iter().map(committed);
            events.map(|event| due_of(run, &event)).collect::<Vec<_>>()
        };
        assert_eq!(stamps(7), [Some(due), None, None]);
        assert_eq!(stamps(8), [None, None, None]);
        let plain = payloads(None).batch(0, 0, due).remove(0);
        assert_eq!(due_of(7, &committed(plain)), None);
    }

    #[test]
    fn every_player_of_every_hunt_has_a_turn() {
        let hunts = vec!["a".to_owned(), "b".to_owned(), "c".to_owned()];
        let payloads = Payloads::new(hunts, 4, 1, 8, None);
        let events = (0..24).flat_map(|request| payloads.batch(request, 0, Duration::ZERO));
        let pairs: BTreeSet<_> = events.map(|event| (event.hunt, event.player)).collect();
        assert_eq!(pairs.len(), 3 * 4);
    }
}
