//! Random crashes at every point of writing and opening, over a disk that loses, tears and reorders what was not synced.
//!
//! After each crash what is found must be what a plain model says it was after some prefix of the operations, and that
//! prefix contains everything that was acknowledged. A failure prints its seed; `CRASH_SEED=n` runs that one alone.
//! `CRASH_SEEDS=n` runs n seeds in each part, for a longer search.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::single_range_in_vec_init,
    reason = "a test panics where it fails; its numbers are small; histories are lists of ranges"
)]

#[path = "../common/mod.rs"]
mod common;
mod model;
mod world;

use huntlog_storage::Crash;
use world::{Faults, World};

/// Crash points a seed goes through.
const ROUNDS: u64 = 25;

fn run(seeds: std::ops::Range<u64>, faults: Faults) -> u64 {
    let mut points = 0;
    let only: Option<u64> = std::env::var("CRASH_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    for seed in seeds.filter(|seed| only.is_none_or(|only| only == *seed)) {
        let mut world = World::new(seed, faults);
        for round in 0..ROUNDS {
            if let Err(violation) = world.round() {
                panic!("{violation}\nround {round}; reproduce with CRASH_SEED={seed}");
            }
        }
        points += world.crash_points;
    }
    points
}

/// Together the four parts go through more than 10,000 crash points; parts run in parallel.
fn part(number: u64) {
    let seeds = std::env::var("CRASH_SEEDS")
        .ok()
        .and_then(|seeds| seeds.parse().ok())
        .unwrap_or(90);
    let points = run(
        number * 1_000_000..number * 1_000_000 + seeds,
        Faults::default(),
    );
    assert!(
        points >= seeds * ROUNDS || std::env::var("CRASH_SEED").is_ok(),
        "only {points} crash points"
    );
    assert!(
        points >= 2_500 || seeds < 90 || std::env::var("CRASH_SEED").is_ok(),
        "only {points} crash points"
    );
}

#[test]
fn nothing_acknowledged_is_lost_part_1() {
    part(1);
}

#[test]
fn nothing_acknowledged_is_lost_part_2() {
    part(2);
}

#[test]
fn nothing_acknowledged_is_lost_part_3() {
    part(3);
}

#[test]
fn nothing_acknowledged_is_lost_part_4() {
    part(4);
}

/// The suite must be able to fail: over a disk that ignores syncs it notices the loss, soon and for most seeds.
#[test]
fn a_disk_that_lies_is_found_out() {
    let mut caught = 0;
    for seed in 0..20 {
        let mut world = World::new(
            seed,
            Faults {
                ignore_syncs: true,
                ..Faults::default()
            },
        );
        if (0..ROUNDS).any(|_| world.round().is_err()) {
            caught += 1;
        }
    }
    assert!(
        caught >= 18,
        "only {caught} of 20 seeds noticed that nothing was ever synced"
    );
}

/// And one that merely loses the page cache when the process dies is no worse than a power cut.
#[test]
fn a_process_crash_loses_nothing_that_was_written() {
    let points = run(
        9000..9010,
        Faults {
            only: Some(Crash::Process),
            ..Faults::default()
        },
    );
    assert!(points > 0);
}

/// One seed, twice: the same operations, the same crashes, the same bytes.
#[test]
fn a_seed_repeats() {
    let trace = |seed| {
        let mut world = World::new(seed, Faults::default());
        for _ in 0..ROUNDS {
            world.round().unwrap();
        }
        world.trace()
    };
    assert_eq!(trace(77), trace(77));
    assert_ne!(trace(77), trace(78));
}
