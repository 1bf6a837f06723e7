//! `huntctl bench` as a process: what it refuses, and a short run against a
//! cluster of real nodes that it spawns itself.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_huntctl"));
    command
        .args(arguments)
        .env_remove("HUNTLOG_ENDPOINTS")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

async fn huntctl(arguments: &[&str]) -> Output {
    command(arguments).output().await.expect("huntctl starts")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

fn spawn_dir() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn name(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[tokio::test]
async fn what_can_not_be_is_refused_before_anything_runs() {
    let refusals: [(&[&str], &str); 27] = [
        (&["append", "--spawn", "2"], "1, 3 or 5 nodes"),
        (&["append", "--spawn-port", "7000"], "--spawn"),
        (
            &["append", "--spawn", "3", "--spawn-port", "65530"],
            "three ports a node",
        ),
        (
            &["append", "--spawn", "3", "--endpoints", "127.0.0.1:1"],
            "leave --endpoints out",
        ),
        (
            &["append", "--spawn", "3", "--metrics", "127.0.0.1:1"],
            "cannot be used with",
        ),
        (&["append", "--batch", "0"], "1..=4096"),
        (
            &["append", "--batch", "4096", "--event-bytes", "1024"],
            "4 MiB",
        ),
        (
            &["append", "--rate", "10", "--in-flight", "2"],
            "cannot be used with",
        ),
        (&["append", "--in-flight", "33"], "1..=32"),
        (&["append", "--connections", "2"], "above --sessions"),
        (
            &["append", "--rate", "10", "--duration", "1s"],
            "not one --batch",
        ),
        (
            // One every ten seconds, and none in the second that is measured.
            &[
                "append",
                "--rate",
                "13",
                "--warm-up",
                "10s",
                "--duration",
                "1s",
            ],
            "not one --batch",
        ),
        (
            &["append", "--hunts", "10000", "--players", "100000"],
            "players to register",
        ),
        (&["append", "--event-bytes", "1048577"], "1..=1048448"),
        (&["read", "--event-bytes", "100"], "--spawn"),
        (
            &["append", "--sessions", "100000", "--in-flight", "32"],
            "1 GiB",
        ),
        (&["append", "--duration", "0s"], "zero"),
        (&["e2e", "--event-bytes", "8"], "at least 16"),
        (
            &["read", "--spawn", "3", "--from", "5"],
            "cannot be used with",
        ),
        (&["failover"], "only with --spawn"),
        (&["failover", "--spawn", "1"], "at least 3"),
        (&["failover", "--spawn", "3", "--runs", "2"], "--kills"),
        (&["restart"], "only with --spawn"),
        (
            &["append", "--assert", "p98<5ms"],
            "--assert: this benchmark has no figure 'p98'",
        ),
        (
            &["disk", "--assert", "kept<1"],
            "--assert: this benchmark has no figure 'kept'",
        ),
        (&["disk", "--bytes", "0"], "1..=1048576"),
        (
            &["disk", "--endpoints", "127.0.0.1:1"],
            "leave --endpoints out",
        ),
    ];
    for (arguments, words) in refusals {
        let output = huntctl(&[&["bench"], arguments].concat()).await;
        assert_eq!(code(&output), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(
            stderr(&output).contains(words),
            "{arguments:?}: {}",
            stderr(&output)
        );
    }
}

#[tokio::test]
async fn a_disk_is_measured_without_a_cluster() {
    let directory = spawn_dir();
    let disk = ["-o", "json", "bench", "disk", "--duration", "200ms"];
    let measured = |more: &[&str]| {
        let arguments = [&disk[..], &[name(directory.path())], more].concat();
        command(&arguments).output()
    };
    let output = measured(&["--runs", "2"]).await.expect("huntctl starts");
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let figure = |name: &str| report["figures"][name].as_f64().expect("a figure");
    assert!(figure("rate_per_second") > 0.0);
    assert!(figure("max_ms") >= figure("p99_ms"));
    assert!(figure("p99_ms") >= figure("p50_ms"));
    assert_eq!(report["runs"].as_array().expect("a list").len(), 2);
    let left = std::fs::read_dir(directory.path()).expect("readable");
    assert_eq!(left.count(), 0, "files are left behind");

    let output = measured(&["--assert", "max<0ms"]).await.expect("it starts");
    assert_eq!(code(&output), Some(3), "{}", stderr(&output));

    let missing = directory.path().join("missing");
    let output = huntctl(&["bench", "disk", name(&missing)]).await;
    assert_eq!(code(&output), Some(1), "{}", stderr(&output));
    let told = stderr(&output);
    assert!(told.contains(name(&missing)), "{told}");
}

#[tokio::test]
async fn an_unreachable_cluster_is_told_as_such() {
    let arguments = ["--endpoints", "127.0.0.1:1", "--timeout", "300ms"];
    let output = huntctl(&[&arguments[..], &["bench", "append"]].concat()).await;
    assert_eq!(code(&output), Some(4), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("127.0.0.1:1"),
        "{}",
        stderr(&output)
    );
}

#[tokio::test]
async fn metrics_that_were_named_have_to_answer() {
    let arguments = ["bench", "append", "--metrics", "127.0.0.1:2"];
    let output = huntctl(&arguments).await;
    assert_eq!(code(&output), Some(4), "{}", stderr(&output));
    let words = "what the nodes use can not be measured";
    assert!(stderr(&output).contains(words), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("127.0.0.1:2"),
        "{}",
        stderr(&output)
    );
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("bound").port().to_string();
    let output = huntctl(&["bench", "append", "--spawn", "1", "--spawn-port", &port]).await;
    assert_eq!(code(&output), Some(2), "{}", stderr(&output));
    let words = format!("port {port} can not be taken");
    assert!(stderr(&output).contains(&words), "{}", stderr(&output));
}

#[tokio::test]
async fn a_short_run_gives_every_figure_and_leaves_nothing_behind() {
    let dir = spawn_dir();
    let arguments = [
        "bench",
        "mix",
        "--spawn",
        "3",
        "--spawn-dir",
        name(dir.path()),
        "--batch",
        "4",
        "--sessions",
        "50",
        "--connections",
        "2",
        "--rate",
        "400",
        "--hunts",
        "3",
        "--players",
        "10",
        "--warm-up",
        "500ms",
        "--duration",
        "2s",
        "--timeline",
        "--verify",
        "--assert",
        "errors=0,unsent=0,rejected=0,undelivered=0,terms=0,read>0,max<60s,events_per_sync>0,memory_peak>1MB",
        "-o",
        "json",
    ];
    let output = huntctl(&arguments).await;
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    let told: Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    // 500 ms and 2 s at 400/s, and the three hunts are of another session.
    assert_eq!(told["verified"]["events"], 1_000, "{told:#}");
    assert_eq!(told["verified"]["lost"], 0);
    assert_eq!(told["verified"]["duplicated"], 0);
    let figures = told["figures"].as_object().expect("figures");
    for name in [
        "rate_per_second",
        "p99.9_ms",
        "delivery_p50_ms",
        "cpu_seconds",
        "generator_cpu_seconds",
        "written_bytes",
        "kept_bytes",
        "entries_per_sync",
        "queue_mean_ms",
        "sync_p99_ms",
        "commit_mean_ms",
        "apply_mean_ms",
    ] {
        let value = figures.get(name).and_then(Value::as_f64);
        assert!(value.is_some_and(|value| value > 0.0), "{name}: {told:#}");
    }
    assert_eq!(told["runs"][0]["nodes"].as_array().map(Vec::len), Some(3));
    let seconds = told["runs"][0]["timeline"].as_array().expect("a timeline");
    assert_eq!(seconds.len(), 2, "{seconds:?}");
    for second in seconds {
        assert!(second["rate_per_second"].as_f64() > Some(0.0), "{second}");
    }
    let left = std::fs::read_dir(dir.path()).expect("readable").count();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_killed_leader_costs_no_event_and_a_broken_condition_is_told() {
    let kills = ["bench", "failover", "--spawn", "3", "--kills", "2"];
    let condition = ["--assert", "lost=0,duplicated=0,recovery_median<1us"];
    let output = huntctl(&[&kills[..], &condition].concat()).await;
    assert_eq!(code(&output), Some(3), "{}", stderr(&output));
    let words = "--assert: recovery_median<1us: it is";
    assert!(stderr(&output).contains(words), "{}", stderr(&output));
}

/// Processes that were started with files in this directory.
fn processes_of(dir: &Path) -> usize {
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    processes
        .filter_map(|process| std::fs::read(process.path().join("cmdline")).ok())
        .filter(|line| {
            let line = String::from_utf8_lossy(line);
            line.contains("huntlog-node") && line.contains(name(dir))
        })
        .count()
}

#[tokio::test]
async fn an_interrupted_run_takes_its_cluster_with_it() {
    let dir = spawn_dir();
    let arguments = ["bench", "append", "--spawn", "3", "--duration", "10m"];
    let spawned = ["--spawn-dir", name(dir.path())];
    let mut running = command(&[&arguments[..], &spawned].concat())
        .stderr(Stdio::piped())
        .spawn()
        .expect("huntctl starts");
    let deadline = Instant::now() + Duration::from_secs(30);
    while processes_of(dir.path()) < 3 {
        assert!(Instant::now() < deadline, "three nodes have not started");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let pid = running.id().expect("it runs").to_string();
    let sent = Command::new("kill").args(["-INT", &pid]).status().await;
    assert!(sent.expect("kill starts").success());
    let status = running.wait().await.expect("it ends");
    assert_eq!(status.code(), Some(1));
    assert_eq!(processes_of(dir.path()), 0);
    let left = std::fs::read_dir(dir.path()).expect("readable").count();
    assert_eq!(left, 0);
}
