//! huntctl as a process.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use crate::peer::{Peers, Tamper};

fn command(peers: &Peers, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_huntctl"));
    command
        .arg("--endpoints")
        .arg(peers.addresses().join(","))
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

async fn huntctl(peers: &Peers, arguments: &[&str]) -> Output {
    let output = command(peers, arguments).output().await;
    output.expect("huntctl starts")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

async fn json(peers: &Peers, arguments: &[&str]) -> Value {
    let output = huntctl(peers, &[arguments, &["-o", "json"]].concat()).await;
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        stderr(&output)
    );
    serde_json::from_slice(&output.stdout).expect("one JSON document")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it was not killed")
}

struct Workspace(TempDir);

impl Workspace {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).expect("writable");
        path.to_str().expect("UTF-8").to_owned()
    }

    fn name(&self, name: &str) -> String {
        self.path(name).to_str().expect("UTF-8").to_owned()
    }
}

/// A recording of our own: some teams guess at some puzzles until they are
/// right, one puzzle is never solved, one has two answers, one guess comes
/// after the solve.
fn recording(rows: usize) -> String {
    let mut text = String::from("time,team,puzzle,guess,verdict\n");
    let mut add = |n: usize, team: &str, puzzle: &str, guess: &str, verdict: &str| {
        let (minute, second) = (n / 60, n % 60);
        let time = format!(
            "2020-02-02T{:02}:{:02}:{second:02}Z",
            minute / 60,
            minute % 60
        );
        text.push_str(&format!("{time},{team},{puzzle},{guess},{verdict}\n"));
    };
    for n in 0..rows {
        let (team, puzzle) = (n % 7, n / 21);
        let team = format!("team-{team}");
        let puzzle = format!("\"Puzzle №{puzzle}, part\"");
        match n / 7 % 3 {
            0 => add(n, &team, &puzzle, &format!("WRONG{n}"), "N"),
            1 => add(n, &team, "Unsolvable", "\"A \"\"GUESS\"\"\"", "N"),
            _ if n % 2 == 0 => add(n, &team, &puzzle, "FIRST", "Y"),
            _ => add(n, &team, &puzzle, "SECOND", "Y"),
        }
    }
    let last = "\"Puzzle №0, part\"";
    add(rows, "team-0", last, "FIRST", "Y");
    add(rows, "team-0", last, "TOO LATE", "N");
    text
}

const ROWS: usize = 420;

/// I2, I3, I5
#[tokio::test]
async fn a_recording_is_replayed_in_order_and_every_verdict_agrees() {
    let space = Workspace::new();
    let file = space.write("hunt.csv", &recording(ROWS));
    for sessions in ["1", "3"] {
        let peers = Peers::start(3);
        peers.state().begin_chaos(5, 0.1);
        let ledger = space.name("ledger");
        let arguments = [
            "replay",
            &file,
            "--hunt",
            "gph",
            "--sessions",
            sessions,
            "--batch",
            "4",
            "--ledger",
            &ledger,
        ];
        let summary = json(&peers, &arguments).await;
        assert_eq!(summary["agreements"], ROWS + 2, "{summary:#}");
        assert_eq!(summary["disagreements"], 0);
        assert_eq!(summary["rejected_as_already_solved"], 2);
        let times: Vec<i64> = peers
            .state()
            .log
            .iter()
            .filter_map(|event| Some(event.event.as_ref()?.occurred_at?.seconds))
            .collect();
        assert_eq!(times.len(), ROWS);
        assert!(times.is_sorted(), "the log has the file's order");
        peers.state().chaos = None;
        let verified = json(&peers, &["verify", "--ledger", &ledger]).await;
        assert_eq!(
            (&verified["lost"], &verified["duplicated"]),
            (&0.into(), &0.into())
        );
        assert_eq!(verified["nodes"].as_array().map(Vec::len), Some(3));
        let board = json(&peers, &["hunt", "scoreboard", "gph"]).await;
        assert_eq!(board["rows"].as_array().map(Vec::len), Some(7));
        assert_eq!(board["rows"][0]["solved"], ROWS / 21);
    }
}

#[tokio::test]
async fn a_wrong_verdict_is_told_with_its_line() {
    let space = Workspace::new();
    let text = "time,team,puzzle,guess,verdict\n\
        2020-02-02T00:00:00Z,a,p,RIGHT,Y\n\
        2020-02-02T00:00:01Z,b,p,right!,N\n";
    let file = space.write("hunt.csv", text);
    let peers = Peers::start(1);
    let output = huntctl(&peers, &["replay", &file, "--hunt", "h"]).await;
    assert_eq!(code(&output), 3, "{}", stderr(&output));
    assert!(
        stdout(&output)
            .contains("line 3: \"b\" at \"p\": \"right!\" is judged N, the cluster says solved"),
        "{}",
        stdout(&output)
    );
}

#[tokio::test]
async fn a_faulty_file_sends_nothing() {
    let space = Workspace::new();
    let peers = Peers::start(1);
    for (text, fault) in [
        ("time,team,guess,verdict\n", "line 1: missing column puzzle"),
        (
            "time,team,puzzle,guess,verdict\nnoon,a,b,c,Y\n",
            "line 2: time \"noon\"",
        ),
    ] {
        let file = space.write("hunt.csv", text);
        let output = huntctl(&peers, &["replay", &file, "--hunt", "h"]).await;
        assert_eq!(code(&output), 2);
        assert!(stderr(&output).contains(fault), "{}", stderr(&output));
    }
    assert!(peers.state().log.is_empty());
    assert_eq!(peers.state().sessions().count(), 0);
}

/// I3: the process is killed, and the same command takes up where it was.
#[tokio::test]
async fn a_replay_that_was_killed_is_taken_up_again() {
    let space = Workspace::new();
    let file = space.write("hunt.csv", &recording(ROWS));
    let peers = Peers::start(3);
    // Fewer than were applied, so that outcomes have to come from the log.
    peers.state().results_kept = 2;
    let arguments = [
        "replay",
        &file,
        "--hunt",
        "gph",
        "--sessions",
        "2",
        "--batch",
        "3",
    ];
    let slowly = [&arguments[..], &["--rate", "300"]].concat();
    let mut first = command(&peers, &slowly).spawn().expect("huntctl starts");
    peers.until(|state| state.log.len() > 250).await;
    first.kill().await.expect("it runs");
    let ledger = space.name("ledger");
    let again = [&arguments[..], &["--ledger", &ledger]].concat();
    let summary = json(&peers, &again).await;
    assert_eq!(summary["agreements"], ROWS + 2, "{summary:#}");
    let recovered = summary["events"]["recovered"].as_u64().expect("a number");
    assert!(recovered > 200, "{recovered}");
    let verified = json(&peers, &["verify", "--ledger", &ledger]).await;
    assert_eq!(
        (&verified["lost"], &verified["duplicated"]),
        (&0.into(), &0.into())
    );
    // And once more: nothing is left to do.
    let before = peers.state().log.len();
    let summary = json(&peers, &arguments).await;
    assert_eq!(summary["agreements"], ROWS + 2);
    assert_eq!(summary["events"]["sent"], 0);
    assert_eq!(peers.state().log.len(), before);
    // Other flags are another replay, which finds the hunt taken.
    let other = huntctl(&peers, &["replay", &file, "--hunt", "gph"]).await;
    assert_eq!(code(&other), 3);
    assert!(
        stderr(&other).contains("exists already"),
        "{}",
        stderr(&other)
    );
    assert_eq!(peers.state().log.len(), before);
}

fn wall_ns() -> u128 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.expect("after 1970").as_nanos()
}

#[tokio::test]
async fn a_generated_hunt_is_played_through_a_total_restart() {
    let space = Workspace::new();
    let mut peers = Peers::start(3);
    let (ledger, signal, mark) = (
        space.name("ledger"),
        space.name("signal"),
        space.name("mark"),
    );
    let arguments = [
        "play",
        "--events",
        "3000",
        "--teams",
        "20",
        "--sessions",
        "6",
        "--batch",
        "5",
        "--rate",
        "6000",
        "--ledger",
        &ledger,
        "--signal-at",
        "50%",
        "--signal-file",
        &signal,
        "--mark-file",
        &mark,
        "-o",
        "json",
    ];
    let mut play = command(&peers, &arguments);
    let play = play.stdout(Stdio::piped()).spawn().expect("huntctl starts");
    // The run goes on, so that something changes after the file is there.
    peers.until(|_| Path::new(&signal).exists()).await;
    let before = wall_ns();
    for node in 0..3 {
        peers.kill(node);
    }
    std::fs::write(&mark, format!("{before} {}\n", wall_ns())).expect("writable");
    for node in 0..3 {
        peers.restart(node);
    }
    let output = play.wait_with_output().await.expect("it ends");
    assert!(output.status.success());
    let summary: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(summary["surprises"], 0, "{summary:#}");
    assert!(summary["mark"]["to_next_ack_ms"].is_u64(), "{summary:#}");
    let verified = json(&peers, &["verify", "--ledger", &ledger]).await;
    assert_eq!(verified["acknowledged"], summary["events"]["acknowledged"]);
    assert_eq!(verified["same_content"], true);
    // A generated hunt is played once.
    let again = huntctl(&peers, &arguments[..9]).await;
    assert_eq!(code(&again), 3, "{}", stderr(&again));
}

#[tokio::test]
async fn verify_finds_what_a_node_lost_changed_or_repeated() {
    let space = Workspace::new();
    let peers = Peers::start(3);
    let ledger = space.name("ledger");
    json(&peers, &["play", "--events", "200", "--ledger", &ledger]).await;
    for (tamper, lost, duplicated) in [(Tamper::Truncated, 1, 0), (Tamper::Changed(60), 1, 0)] {
        peers.state().tampered.insert(1, tamper);
        let output = huntctl(&peers, &["verify", "--ledger", &ledger, "-o", "json"]).await;
        assert_eq!(code(&output), 3, "{tamper:?}: {}", stderr(&output));
        let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(found["lost"], lost, "{tamper:?}: {found:#}");
        assert_eq!(found["duplicated"], duplicated, "{tamper:?}: {found:#}");
        assert_eq!(found["same_content"], false, "{tamper:?}");
    }
    // An event applied a second time, which every node then has.
    let again = {
        let state = peers.state();
        state.log_of_with(Tamper::Repeated(70))
    };
    peers.state().tampered.clear();
    peers.state().log = again;
    let output = huntctl(&peers, &["verify", "--ledger", &ledger, "-o", "json"]).await;
    assert_eq!(code(&output), 3);
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(found["lost"], 0, "{found:#}");
    assert!(found["duplicated"].as_u64() > Some(0), "{found:#}");
}

#[tokio::test]
async fn hunts_and_events_are_made_and_read() {
    let space = Workspace::new();
    let peers = Peers::start(3);
    let toml = "title = \"Walk\"\n[[clues]]\nid = \"c\"\nanswers = [\"Yes\"]\npoints = 3\n";
    let file = space.write("hunt.toml", toml);
    json(&peers, &["hunt", "create", "walk", "--file", &file]).await;
    json(
        &peers,
        &["player", "register", "walk", "ada", "--name", "Ada"],
    )
    .await;
    json(&peers, &["hunt", "start", "walk"]).await;
    let event = r#"{"hunt":"walk","player":"ada","clue_attempted":{"clue":"c","answer":"yes"}}"#;
    let appended = json(&peers, &["event", "append", event]).await;
    let effects = &appended["outcomes"][0]["accepted"]["effects"];
    assert_eq!(effects[0]["clue_solved"]["points"], 3, "{appended:#}");
    let hunt = json(&peers, &["hunt", "get", "walk"]).await;
    assert_eq!(hunt["definition"]["title"], "Walk");
    json(&peers, &["hunt", "create", "another", "--file", &file]).await;
    let hunts = json(&peers, &["hunt", "list"]).await;
    assert_eq!(hunts.as_array().map(Vec::len), Some(2));
    let read = huntctl(&peers, &["event", "read", "--hunt", "walk", "-o", "json"]).await;
    let lines: Vec<Value> = stdout(&read)
        .lines()
        .map(|line| serde_json::from_str(line).expect("one JSON document a line"))
        .collect();
    assert_eq!(lines.len(), 4);
    assert_eq!(lines[3]["event"]["clue_attempted"]["answer"], "yes");
    let tail = huntctl(&peers, &["event", "tail", "--from", "1", "--limit", "2"]).await;
    assert!(
        stdout(&tail).contains("player_registered"),
        "{}",
        stdout(&tail)
    );
    let status = huntctl(&peers, &["cluster", "status"]).await;
    // A line of columns, three nodes, and how far the cluster is with its releases.
    assert_eq!(stdout(&status).lines().count(), 5, "{}", stdout(&status));
    let health = json(&peers, &["cluster", "health"]).await;
    assert_eq!(health["healthy"], true);
    assert_eq!(
        json(&peers, &["leader", "transfer", "--to", "2"]).await["leader_id"],
        2
    );
    assert!(json(&peers, &["snapshot"]).await["log_index"].is_u64());
    let sessions = json(&peers, &["session", "list"]).await;
    assert!(sessions.as_array().is_some_and(|list| !list.is_empty()));
}

#[tokio::test]
async fn exit_codes_tell_usage_refused_and_unavailable_apart() {
    let space = Workspace::new();
    let mut peers = Peers::start(1);
    let file = space.write("hunt.json", r#"{"clues":[{"id":"c","answer":["typo"]}]}"#);
    let output = huntctl(&peers, &["hunt", "create", "h", "--file", &file]).await;
    assert_eq!(code(&output), 2);
    assert!(
        stderr(&output).contains("unknown field `answer`"),
        "{}",
        stderr(&output)
    );
    for (arguments, expected) in [
        (&["hunt"][..], 2),
        (&["hunt", "create", "h", "--file", "missing.json"], 2),
        (&["event", "append", "--file", "missing.jsonl"], 2),
        (&["event", "append", "{}"], 2),
        (&["event", "read", "--type", "rumour"], 2),
        (&["hunt", "get", "none"], 3),
        (&["hunt", "start", "none"], 3),
        (&["event", "read", "--from", "5"], 3),
    ] {
        let output = huntctl(&peers, arguments).await;
        assert_eq!(
            code(&output),
            expected,
            "{arguments:?}: {}",
            stderr(&output)
        );
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
    peers.kill(0);
    for arguments in [
        &["--timeout", "300ms", "hunt", "list"][..],
        &["--timeout", "300ms", "hunt", "start", "h"],
        &["--timeout", "300ms", "cluster", "health"],
    ] {
        let output = huntctl(&peers, arguments).await;
        assert_eq!(code(&output), 4, "{arguments:?}: {}", stderr(&output));
    }
    // An append whose session is not even open says what became of its events.
    let event = r#"{"hunt":"h","custom":{"type":"t","text":"x"}}"#;
    let arguments = ["--timeout", "300ms", "event", "append", event];
    let output = huntctl(&peers, &arguments).await;
    assert_eq!(code(&output), 4);
    assert!(
        stderr(&output).contains("NOT_APPLIED"),
        "{}",
        stderr(&output)
    );
    let help = huntctl(&peers, &["--help"]).await;
    assert!(stdout(&help).contains("Exit codes:"), "{}", stdout(&help));
}

/// I10: an event that can not be sent hides nothing of those before it.
#[tokio::test]
async fn what_was_acknowledged_is_told_before_what_was_not_sent() {
    let space = Workspace::new();
    let peers = Peers::start(1);
    let event = |text: &str| format!(r#"{{"hunt":"h","custom":{{"type":"t","text":"{text}"}}}}"#);
    let lines = [event("a"), event(&"x".repeat(2 << 20)), event("b")].join("\n");
    let file = space.write("events.jsonl", &lines);
    let output = huntctl(&peers, &["event", "append", "--file", &file]).await;
    let (told, error) = (stdout(&output), stderr(&output));
    // That of a hunt which is not there: it was answered, with a rejection.
    assert_eq!(told.lines().count(), 1, "{told}\n{error}");
    assert_eq!(code(&output), 3, "{error}");
    assert!(error.contains("event 2 of 3"), "{error}");
    assert_eq!(peers.state().received.values().sum::<u64>(), 1);
}
