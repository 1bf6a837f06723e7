//! How fast one core applies, and what sessions weigh:
//! `cargo run --release -p huntlog-machine --example apply_rate`.
#![expect(clippy::print_stdout, reason = "it is there to print")]

use bytes::Bytes;
use huntlog_machine::{
    Batch, BatchResult, Clue, CommandResult, EncodedCommand, EntryBuilder, Event, EventKind,
    HuntDefinition, Limits, LogId, Machine, answer_hash, encode_batch, encode_open_session,
    history,
};
use std::time::Instant;

fn main() {
    for hunts in [1, 16] {
        large_batches(hunts);
    }
    single_events(10_000, 512);
    single_events(10_000, 16);
    attempts();
    million_sessions();
}

/// A machine, and the log it is fed.
struct Bench {
    machine: Machine,
    index: u64,
}

impl Bench {
    fn new() -> Self {
        Self {
            machine: Machine::new(0, Limits::default()),
            index: 0,
        }
    }

    fn entry(&self, commands: &[EncodedCommand]) -> Bytes {
        let mut entry = EntryBuilder::new(self.index, self.machine.digest());
        commands.iter().for_each(|command| entry.push(command));
        entry.finish()
    }

    fn apply(&mut self, entry: &Bytes) -> huntlog_machine::Applied {
        let log_id = LogId {
            term: 1,
            node_id: 1,
            index: self.index,
        };
        self.index += 1;
        self.machine.apply(log_id, entry).expect("a sound log")
    }

    /// Opens sessions, and returns the epoch of each.
    fn open(&mut self, names: &[String]) -> Vec<u64> {
        let mut epochs = Vec::new();
        for names in names.chunks(4_096) {
            let commands: Vec<_> = names
                .iter()
                .map(|name| encode_open_session(name, name.as_bytes()))
                .collect();
            let entry = self.entry(&commands);
            for result in self.apply(&entry).results {
                let CommandResult::SessionOpened { epoch, .. } = result else {
                    panic!("{result:?}");
                };
                epochs.push(epoch);
            }
        }
        epochs
    }

    /// Makes hunts `h0`, `h1`, ... and runs them.
    fn start_hunts(&mut self, hunts: usize) {
        let epoch = self.open(&["organiser".into()])[0];
        let mut events = Vec::new();
        for hunt in 0..hunts {
            let clue = Clue {
                id: "c".into(),
                answer_hashes: vec![answer_hash(b"", "never")],
                ..Clue::default()
            };
            let definition = HuntDefinition {
                clues: vec![clue],
                ..HuntDefinition::default()
            };
            events.push(event(
                hunt,
                "",
                EventKind::HuntCreated(Box::new(definition)),
            ));
            events.push(event(hunt, "", EventKind::HuntStarted));
        }
        let entry = self.entry(&[encode_batch(&batch("organiser", epoch, 1, events))]);
        self.apply(&entry);
    }
}

fn event(hunt: usize, player: &str, kind: EventKind) -> Event {
    Event {
        hunt: format!("h{hunt}"),
        player: player.into(),
        occurred_at: None,
        kind,
    }
}

fn batch(session: &str, epoch: u64, sequence: u64, events: Vec<Event>) -> Batch {
    Batch {
        session: session.into(),
        epoch,
        sequence,
        expected: Vec::new(),
        events,
    }
}

fn report(hunt: usize, player: &str) -> Event {
    let kind = EventKind::Custom {
        type_name: "position".into(),
        payload: Bytes::from_static(&[7; 232]),
    };
    event(hunt, player, kind)
}

fn names(count: usize) -> Vec<String> {
    (0..count)
        .map(|session| format!("session-{session}"))
        .collect()
}

/// Applies entries made beforehand, in rounds, so that making them is not
/// timed.
fn measure(
    what: &str,
    bench: &mut Bench,
    rounds: u64,
    mut round: impl FnMut(&Bench, u64) -> Vec<Vec<EncodedCommand>>,
) -> Vec<(Bytes, Bytes)> {
    let (mut seconds, mut events, mut record_bytes, mut entries) = (0.0, 0, 0, 0);
    let mut kept = Vec::new();
    for number in 0..rounds {
        let commands = round(bench, number);
        let made: Vec<_> = commands
            .iter()
            .map(|commands| bench.entry(commands))
            .collect();
        let start = Instant::now();
        let applied: Vec<_> = made.iter().map(|entry| bench.apply(entry)).collect();
        seconds += start.elapsed().as_secs_f64();
        for applied in &applied {
            assert!(
                applied
                    .results
                    .iter()
                    .all(|result| matches!(result, CommandResult::Batch(BatchResult::Applied(_))))
            );
            events += applied.accepted;
            record_bytes += applied.record.len();
            entries += 1;
        }
        kept = made
            .into_iter()
            .zip(applied.into_iter().map(|applied| applied.record))
            .collect();
    }
    println!(
        "{what}: {:.0} events/s, {:.0} ns an event, {} bytes of record an entry",
        events as f64 / seconds,
        seconds * 1e9 / events as f64,
        record_bytes / entries,
    );
    kept
}

fn large_batches(hunts: usize) {
    let mut bench = Bench::new();
    bench.start_hunts(hunts);
    let names = names(64);
    let epochs = bench.open(&names);
    let mut sequence = 0;
    let what = format!("256 B Custom, 128 a batch, 32 batches an entry, {hunts} hunts");
    let log = measure(&what, &mut bench, 20, |_, _| {
        (0..32)
            .map(|entry| {
                if entry % 2 == 0 {
                    sequence += 1;
                }
                let half = if entry % 2 == 0 { 0..32 } else { 32..64 };
                half.map(|session: usize| {
                    let events = (0..128)
                        .map(|event| report(event % hunts, "player-123"))
                        .collect();
                    encode_batch(&batch(&names[session], epochs[session], sequence, events))
                })
                .collect()
            })
            .collect()
    });
    let start = Instant::now();
    let mut events = 0_u64;
    for (entry, record) in &log {
        for event in history::events(entry, record).expect("sound") {
            event.expect("sound");
            events += 1;
        }
    }
    println!(
        "  read back: {:.0} events/s",
        events as f64 / start.elapsed().as_secs_f64()
    );
}

fn single_events(sessions: usize, commands_per_entry: usize) {
    let mut bench = Bench::new();
    bench.start_hunts(1);
    let names = names(sessions);
    let epochs = bench.open(&names);
    let what = format!(
        "256 B Custom, 1 a batch, {commands_per_entry} batches an entry, {sessions} sessions"
    );
    measure(&what, &mut bench, 40, |_, round| {
        let commands: Vec<_> = (0..sessions)
            .map(|session| {
                // A stride that visits all sessions, far from each other.
                let session = session * 7_919 % sessions;
                let events = vec![report(0, "player-123")];
                encode_batch(&batch(&names[session], epochs[session], round + 1, events))
            })
            .collect();
        commands
            .chunks(commands_per_entry)
            .map(<[_]>::to_vec)
            .collect()
    });
}

fn attempts() {
    let mut bench = Bench::new();
    bench.start_hunts(1);
    let names = names(64);
    let epochs = bench.open(&names);
    let players: Vec<_> = (0..1_000)
        .map(|player| format!("player-{player}"))
        .collect();
    let registrations = players
        .iter()
        .map(|player| {
            let display_name = player.clone();
            event(0, player, EventKind::PlayerRegistered { display_name })
        })
        .collect();
    let entry = bench.entry(&[encode_batch(&batch(&names[0], epochs[0], 1, registrations))]);
    bench.apply(&entry);
    let mut sequence = 0;
    measure(
        "wrong answers, 128 a batch, 1,000 players",
        &mut bench,
        10,
        |_, _| {
            sequence += 1;
            let guesses = names.iter().zip(&epochs).skip(1).map(|(name, epoch)| {
                let events = (0..128)
                    .map(|event_number| {
                        let kind = EventKind::ClueAttempted {
                            clue: "c".into(),
                            answer: "GUESS".into(),
                        };
                        event(0, &players[event_number * 7 % 1_000], kind)
                    })
                    .collect();
                encode_batch(&batch(name, *epoch, sequence, events))
            });
            guesses.map(|command| vec![command]).collect()
        },
    );
}

/// With the organiser's, as many as there may be.
const SESSIONS: usize = 999_999;

fn million_sessions() {
    let before = resident_bytes();
    let mut bench = Bench::new();
    bench.start_hunts(1);
    let names = names(SESSIONS);
    let with_names = resident_bytes();
    let start = Instant::now();
    let epochs = bench.open(&names);
    println!(
        "opening 999,999 sessions: {:.0} ns each, {} resident bytes each, names of {} bytes included",
        start.elapsed().as_secs_f64() * 1e3,
        (resident_bytes() - with_names) / SESSIONS,
        names.iter().map(String::len).sum::<usize>() / names.len(),
    );
    println!("  (the process before: {} MB)", before >> 20);
    let mut sent = 0;
    // Visits all sessions, far from each other.
    let mut round = |_: &Bench, _| -> Vec<Vec<EncodedCommand>> {
        let commands: Vec<_> = (sent..sent + 10_240)
            .map(|number| {
                let session = number * 7_919 % SESSIONS;
                let sequence = 1 + (number / SESSIONS) as u64;
                let events = vec![report(0, "player-123")];
                encode_batch(&batch(&names[session], epochs[session], sequence, events))
            })
            .collect();
        sent += 10_240;
        commands.chunks(512).map(<[_]>::to_vec).collect()
    };
    let what = "256 B Custom, 1 a batch, 512 batches an entry, 999,999 sessions";
    measure(what, &mut bench, 100, &mut round);
    println!(
        "  {} resident bytes each, results included",
        (resident_bytes() - with_names) / SESSIONS
    );

    let start = Instant::now();
    let view = bench.machine.view();
    println!(
        "taking a view: {:.1} us",
        start.elapsed().as_secs_f64() * 1e6
    );
    measure(
        "  the same while the view is held, and what changes is copied",
        &mut bench,
        20,
        &mut round,
    );
    let start = Instant::now();
    let mut snapshot = Vec::new();
    let hash = view.write_to(&mut snapshot).expect("a Vec takes all");
    println!(
        "writing a snapshot of {} MB: {:.2} s",
        snapshot.len() >> 20,
        start.elapsed().as_secs_f64()
    );
    let start = Instant::now();
    let restored = Machine::restore(snapshot.as_slice(), Limits::default()).expect("sound");
    println!("restoring it: {:.2} s", start.elapsed().as_secs_f64());
    assert_eq!(restored.view().state_hash(), hash);
}

/// Resident memory, in pages of 4 KiB; 0 where /proc is missing.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<usize>().ok());
    pages.unwrap_or_default() * 4_096
}
