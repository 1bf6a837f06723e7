//! Simulated clusters: how seeds end, and their processes with them.

use std::fs;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{harness, said, send};

#[test]
fn a_seed_in_which_nothing_happened_has_no_verdict_and_says_how_to_repeat_it() {
    let no_time = ["sim", "--ticks", "1", "--seeds", "1"];
    let output = harness().args(no_time).output().expect("it starts");
    let simulated = said(&output);
    assert_eq!(output.status.code(), Some(3), "{simulated}");
    let traced = harness().args(no_time).arg("--trace").output();
    let traced = traced.expect("it starts");
    assert_eq!(traced.status.code(), Some(3), "{}", said(&traced));
    let repeated = "repeat it: huntlog-jepsen sim --ticks 1 --seeds 1 --trace\n";
    for part in ["no verdict: ", " a second), ", repeated] {
        assert!(simulated.contains(part), "{part} is not in {simulated}");
    }
    assert!(said(&traced).contains(repeated), "{}", said(&traced));
}

/// The processes that `pid` has started for seeds, as far as they run.
fn seeds_of(pid: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("readable").flatten();
    let parent = format!("--in-process\0{pid}\0");
    processes
        .filter(|process| {
            let command = fs::read(process.path().join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&command).contains(&parent)
        })
        .filter_map(|process| process.file_name().to_string_lossy().parse().ok())
        .collect()
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Two seeds that go on for minutes.
fn long_ones() -> Child {
    let running = harness()
        .args(["sim", "--seeds", "1..9", "--jobs", "2"])
        .args(["--ticks", "3600000"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let pid = running.id();
    wait_until("two seeds run", || seeds_of(pid).len() == 2);
    running
}

#[test]
fn one_that_is_interrupted_ends_its_seeds() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let running = long_ones();
        let pid = running.id();
        send(pid, signal);
        let output = running.wait_with_output().expect("a child of ours");
        assert_eq!(output.status.code(), Some(4), "{}", said(&output));
        assert!(said(&output).contains("interrupted"), "{}", said(&output));
        assert_eq!(seeds_of(pid), Vec::<u32>::new(), "{signal:?}");
    }
}

#[test]
fn the_seeds_of_one_that_is_killed_end_with_it() {
    let mut running = long_ones();
    let pid = running.id();
    running.kill().expect("killed");
    running.wait().expect("a child of ours");
    wait_until("they end", || seeds_of(pid).is_empty());
}

#[test]
fn a_seed_whose_process_is_killed_has_no_end() {
    let running = harness()
        .args(["sim", "--seeds", "1", "--ticks", "3600000"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let pid = running.id();
    wait_until("its process runs", || !seeds_of(pid).is_empty());
    for seed in seeds_of(pid) {
        send(seed, Signal::KILL);
    }
    let output = running.wait_with_output().expect("a child of ours");
    let said = said(&output);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("1 came to no end: [1]"), "{said}");
}
