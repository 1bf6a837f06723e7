//! What a million sessions weigh, in memory and in a snapshot:
//! `cargo run --release -p huntlog-machine --example session_weight`.
#![expect(clippy::print_stdout, reason = "it is there to print")]

#[path = "../benches/fed/mod.rs"]
mod fed;

use std::time::{Duration, Instant};

use fed::{Fed, batch, names, report};
use huntlog_machine::{EncodedCommand, Limits, Machine, encode_batch};

/// With the organiser's, as many as there may be.
const SESSIONS: usize = 999_999;

/// Single events in an entry.
const EVENTS_PER_ENTRY: usize = 512;

fn main() {
    let before = resident_bytes();
    let mut fed = Fed::new();
    fed.start_hunts(1);
    let names = names(SESSIONS);
    let with_names = resident_bytes();
    let start = Instant::now();
    let epochs = fed.open(&names);
    println!(
        "opening 999,999 sessions: {:.0} ns each, {} resident bytes each, names of {} bytes included",
        start.elapsed().as_secs_f64() * 1e3,
        (resident_bytes() - with_names) / SESSIONS,
        names.iter().map(String::len).sum::<usize>() / names.len(),
    );
    println!("  (the process before: {} MB)", before >> 20);
    let mut sent = 0;
    // Visits all sessions, far from each other.
    let mut round = || -> Vec<EncodedCommand> {
        let commands = (sent..sent + EVENTS_PER_ENTRY).map(|number| {
            let session = number * 7_919 % SESSIONS;
            let sequence = 1 + (number / SESSIONS) as u64;
            let events = vec![report(0, "player-123")];
            encode_batch(&batch(&names[session], epochs[session], sequence, events))
        });
        let commands = commands.collect();
        sent += EVENTS_PER_ENTRY;
        commands
    };
    apply("single events of all of them", &mut fed, 2_000, &mut round);
    println!(
        "  {} resident bytes each, results included",
        (resident_bytes() - with_names) / SESSIONS
    );

    let start = Instant::now();
    let view = fed.machine.view();
    println!(
        "taking a view: {:.1} us",
        start.elapsed().as_secs_f64() * 1e6
    );
    let what = "  the same while the view is held, and what changes is copied";
    apply(what, &mut fed, 400, &mut round);
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

fn apply(what: &str, fed: &mut Fed, entries: u32, round: &mut impl FnMut() -> Vec<EncodedCommand>) {
    let mut took = Duration::ZERO;
    let mut events = 0;
    for _ in 0..entries {
        let entry = fed.entry(&round());
        let start = Instant::now();
        events += fed.apply(&entry).accepted;
        took += start.elapsed();
    }
    let rate = events as f64 / took.as_secs_f64();
    println!("{what}: {rate:.0} events/s");
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
