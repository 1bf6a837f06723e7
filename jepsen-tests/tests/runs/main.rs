//! The command line: what it refuses, and that a run leaves nothing behind.

mod simulated;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use huntlog_jepsen::run::Plan;
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

fn harness() -> Command {
    // Whoever runs this under `nohup` has it ignore SIGHUP.
    let mut command = Command::new("/usr/bin/env");
    command.args(["--default-signal=HUP", env!("CARGO_BIN_EXE_huntlog-jepsen")]);
    command
}

fn refused(arguments: &[&str], code: i32) -> String {
    let output = harness().args(arguments).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    said
}

fn run(out: &Path, seconds: u32, more: &[&str]) -> Command {
    let mut command = harness();
    command.args(["run", "--workload", "log", "--rate", "50"]);
    command.arg("--time").arg(seconds.to_string());
    command.arg("--out").arg(out.join("run")).args(more);
    command
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn unknown_names_are_answered_with_the_known_ones() {
    let workload = refused(
        &[
            "run",
            "--workload",
            "chess",
            "--nemesis",
            "none",
            "--out",
            "x",
        ],
        2,
    );
    assert!(
        workload.contains("chess") && workload.contains("log, claim, sessions, membership, mixed"),
        "{workload}"
    );
    let nemesis = refused(
        &[
            "run",
            "--workload",
            "log",
            "--nemesis",
            "fire",
            "--out",
            "x",
        ],
        2,
    );
    assert!(
        nemesis.contains("fire") && nemesis.contains("kill-leader"),
        "{nemesis}"
    );
    let nodes = [
        "run",
        "--workload",
        "log",
        "--nemesis",
        "none",
        "--nodes",
        "4",
        "--out",
        "x",
    ];
    assert!(refused(&nodes, 2).contains("3 or 5"));
}

#[test]
fn a_table_of_no_runs_is_wrong_usage() {
    let said = refused(&["matrix", "--times", "0", "--out", "x"], 2);
    assert!(said.contains("--times"), "{said}");
}

#[test]
fn what_comes_between_nodes_needs_namespaces() {
    let dir = TempDir::new().expect("a directory");
    let output = run(
        dir.path(),
        5,
        &["--nemesis", "partition-leader", "--loopback"],
    )
    .output()
    .expect("it starts");
    // Told to do without what there is, or on a machine that has none.
    let code = Plan::namespaces_missing().map_or(2, |_| 4);
    assert_eq!(output.status.code(), Some(code));
    let said = said(&output);
    assert!(
        said.contains("partition-leader comes between nodes"),
        "{said}"
    );
    assert!(
        !dir.path().join("run").exists(),
        "refused before anything is begun"
    );
}

#[test]
fn what_the_machine_lacks_is_no_wrong_usage() {
    let dir = TempDir::new().expect("a directory");
    let output = run(dir.path(), 5, &["--nemesis", "disk-slow", "--loopback"])
        .env("PATH", dir.path())
        .output()
        .expect("it starts");
    assert_eq!(output.status.code(), Some(4), "{}", said(&output));
    let said = said(&output);
    assert!(said.contains("this machine lacks something: "), "{said}");
}

/// A directory for a run with something in it, before which a run stops.
fn occupied(dir: &Path) -> PathBuf {
    let out = dir.join("run");
    fs::create_dir(&out).expect("made");
    fs::write(out.join("history.jsonl"), "precious").expect("written");
    out
}

/// Else it would be in the way of finding out whether there are namespaces.
#[test]
fn what_a_dead_process_with_the_same_id_left_behind_is_removed_first() {
    if let Some(why) = Plan::namespaces_missing() {
        println!("skipped: {why}");
        return;
    }
    let dir = TempDir::new().expect("a directory");
    occupied(dir.path());
    let run = run(dir.path(), 5, &["--nemesis", "none"]);
    // The shell becomes the run, and so has its process id.
    let script = "ip netns add huntlog-jepsen-$$-0-bridge && exec \"$0\" \"$@\"";
    let output = Command::new("sh")
        .args(["-c", script])
        .arg(run.get_program())
        .args(run.get_args())
        .output()
        .expect("it starts");
    let said = said(&output);
    assert!(said.contains("is not empty"), "{said}");
    assert!(!said.contains("loopback"), "{said}");
}

#[test]
fn a_directory_with_something_in_it_is_left_alone() {
    let dir = TempDir::new().expect("a directory");
    let out = occupied(dir.path());
    let output = run(dir.path(), 5, &["--nemesis", "none", "--loopback"])
        .output()
        .expect("it starts");
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("is not empty"), "{}", said(&output));
    let kept = fs::read_to_string(out.join("history.jsonl")).expect("there");
    assert_eq!(kept, "precious");
}

#[test]
fn a_file_that_is_no_history_is_named_by_line() {
    let dir = TempDir::new().expect("a directory");
    let file = dir.path().join("history.jsonl");
    let path = file.display().to_string();
    assert!(refused(&["check", &path], 2).contains(&path));
    fs::write(&file, "{\"index\":0}\n").expect("written");
    let said = refused(&["check", &path], 2);
    assert!(said.contains("line 1 is no event of a history"), "{said}");
}

#[test]
fn a_run_without_faults_is_valid_and_leaves_its_files() {
    let dir = TempDir::new().expect("a directory");
    let output = run(dir.path(), 5, &["--nemesis", "none", "--loopback"])
        .output()
        .expect("it starts");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let out = dir.path().join("run");
    for name in [
        "history.jsonl",
        "nemesis.log",
        "summary.json",
        "summary.html",
        "plot.svg",
    ] {
        assert!(out.join(name).is_file(), "{name}");
    }
    for node in 1..=3 {
        assert!(out.join(format!("node{node}/node.log")).is_file());
        assert!(!out.join(format!("node{node}/data")).exists());
    }
    let history = out.join("history.jsonl").display().to_string();
    let checked = harness()
        .args(["check", &history])
        .output()
        .expect("it starts");
    assert_eq!(checked.status.code(), Some(0), "{}", said(&checked));
}

/// The namespaces and locks, the mounts under `dir`, and the data of nodes there.
fn left_of(pid: u32, dir: &Path) -> Vec<String> {
    let prefix = format!("huntlog-jepsen-{pid}-");
    let entries = ["/run/netns", "/run"].into_iter().flat_map(fs::read_dir);
    let names = entries.flatten().flatten().map(|entry| entry.file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    let mounts = fs::read_to_string("/proc/self/mounts").expect("readable");
    let path = dir.display().to_string();
    let mounts = mounts
        .lines()
        .filter(|line| line.contains(&path))
        .map(str::to_owned);
    let data = (1..=3).map(|node| dir.join(format!("run/node{node}/data")));
    let data = data.filter(|data| data.exists());
    let temporary = fs::read_dir(temporary(dir)).into_iter().flatten().flatten();
    names
        .filter(|name| name.starts_with(&prefix))
        .chain(mounts)
        .chain(data.map(|data| data.display().to_string()))
        .chain(temporary.map(|entry| entry.path().display().to_string()))
        .collect()
}

/// Where a run's disks are.
fn temporary(dir: &Path) -> PathBuf {
    dir.join("temporary")
}

fn send(pid: u32, signal: Signal) {
    let id = Pid::from_raw(i32::try_from(pid).expect("a process id")).expect("not 0");
    kill_process(id, signal).expect("it runs");
}

/// Starts a run that goes on for minutes, waits until `begun`, stops it, and
/// looks for what it has left.
#[expect(clippy::print_stdout, reason = "what was not tested is said")]
fn interrupted_when(signal: Signal, begun: impl Fn(u32, &Path) -> bool) {
    if !geteuid().is_root() {
        println!("skipped: network namespaces need root");
        return;
    }
    let dir = TempDir::new().expect("a directory");
    fs::create_dir(temporary(dir.path())).expect("made");
    let mut running = run(dir.path(), 600, &["--nemesis", "power-cut"])
        .env("TMPDIR", temporary(dir.path()))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let pid = running.id();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !begun(pid, dir.path()) {
        assert!(Instant::now() < deadline, "it begins");
        assert!(running.try_wait().expect("a child").is_none(), "it goes on");
        std::thread::sleep(Duration::from_millis(2));
    }
    send(pid, signal);
    let output = running.wait_with_output().expect("a child of ours");
    assert_eq!(output.status.code(), Some(4), "{}", said(&output));
    assert!(said(&output).contains("interrupted"), "{}", said(&output));
    assert_eq!(left_of(pid, dir.path()), Vec::<String>::new());
    let processes = fs::read_dir("/proc").expect("readable").flatten();
    let path = dir.path().display().to_string();
    for process in processes {
        let command = fs::read(process.path().join("cmdline")).unwrap_or_default();
        assert!(
            !String::from_utf8_lossy(&command).contains(&path),
            "{process:?}"
        );
    }
}

#[test]
fn an_interrupted_run_leaves_nothing_behind() {
    interrupted_when(Signal::INT, |pid, dir| {
        dir.join("run/node3/node.log").exists() && left_of(pid, dir).len() >= 4
    });
}

#[test]
fn one_that_is_interrupted_while_it_finds_out_what_it_may_leaves_nothing_behind() {
    interrupted_when(Signal::TERM, |_, dir| {
        let mut disks = fs::read_dir(temporary(dir)).expect("readable");
        disks.next().is_some() && !dir.join("run").exists()
    });
}

#[test]
fn one_that_is_interrupted_while_it_makes_its_network_leaves_nothing_behind() {
    // Its terminal is closed.
    interrupted_when(Signal::HUP, |pid, dir| {
        dir.join("run").exists() && !left_of(pid, dir).is_empty()
    });
}

/// The whole harness, proved: a cluster that loses what it has acknowledged is
/// caught, by the file it has written as well.
#[test]
fn acknowledged_writes_that_a_lying_disk_loses_are_missed() {
    let dir = TempDir::new().expect("a directory");
    let output = run(dir.path(), 20, &["--nemesis", "disk-lying", "--seed", "1"])
        .output()
        .expect("it starts");
    let said = said(&output);
    if said.contains("this machine lacks something") {
        println!("skipped: {said}");
        return;
    }
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("I2 not lost"), "{said}");
    let history = dir.path().join("run/history.jsonl").display().to_string();
    let checked = harness()
        .args(["check", &history])
        .output()
        .expect("it starts");
    assert_eq!(checked.status.code(), Some(1), "{checked:?}");
}
