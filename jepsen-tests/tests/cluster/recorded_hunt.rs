//! A real hunt, played again through failures: the published results come out.

use huntlog_jepsen::Cluster;
use serde_json::Value;

use crate::support::{huntctl, recorded_hunt, succeed, wait_for_file};

const HUNT: &str = "gph2018";
const GUESSES: u64 = 38_508;

/// The published results.
const FIRST_SIX: [&str; 6] = [
    "team-029", "team-013", "team-004", "team-003", "team-009", "team-014",
];

/// Replays the recorded hunt; in the middle `disturb` does its worst.
#[allow(
    clippy::print_stdout,
    reason = "a test that is skipped says so, and why"
)]
async fn replay_through(cluster: &mut Cluster, disturb: impl AsyncFnOnce(&mut Cluster)) {
    let Some(recording) = recorded_hunt() else {
        println!("skipped: the recorded hunt is not on this machine");
        return;
    };
    let endpoints = cluster.endpoints();
    let ledger = cluster.dir().join("ledger");
    let middle = cluster.dir().join("middle");
    let mut replay = huntctl(&endpoints);
    replay
        .args(["-o", "json", "replay"])
        .arg(&recording)
        .args(["--hunt", HUNT, "--sessions", "3", "--batch", "16"])
        .args(["--signal-at", "50%", "--signal-file"])
        .arg(&middle)
        .args(["--rate", "12000", "--ledger"])
        .arg(&ledger)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let mut process = replay.spawn().expect("huntctl starts");
    wait_for_file(&middle, &mut process).await;
    disturb(cluster).await;
    assert!(
        process.try_wait().expect("a child of ours").is_none(),
        "the replay was over before its middle was disturbed"
    );
    let output = process.wait_with_output().await.expect("huntctl ends");
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let summary: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(summary["agreements"], GUESSES, "{summary}");
    assert_eq!(summary["disagreements"], 0, "{summary}");

    let mut verify = huntctl(&endpoints);
    verify.arg("verify").arg("--ledger").arg(&ledger);
    succeed(verify).await;

    let mut scoreboard = huntctl(&endpoints);
    scoreboard.args(["-o", "json", "hunt", "scoreboard", HUNT, "--limit", "6"]);
    let output = succeed(scoreboard).await;
    let board: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let rows = board["rows"].as_array().expect("rows");
    let first: Vec<&str> = rows
        .iter()
        .filter_map(|row| row["player"].as_str())
        .collect();
    assert_eq!(first, FIRST_SIX);
    assert!(rows.iter().all(|row| row["solved"] == 41), "{board}");
    for (rank, row) in (1..).zip(rows) {
        assert_eq!(row["rank"], rank, "{row}");
        assert_eq!(row["points"], 41, "one point for each clue: {row}");
        assert!(row["last_solve_offset"].is_u64(), "{row}");
        assert!(row["last_solve_at"].is_string(), "{row}");
    }
    let clue = board["clues"]
        .as_array()
        .and_then(|clues| clues.iter().find(|clue| clue["clue"] == "Try and Eat"))
        .expect("a clue of the hunt");
    assert_eq!(
        (&clue["solves"], &clue["attempts"]),
        (&Value::from(420), &Value::from(647))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_real_hunt_survives_the_death_of_its_leader() {
    let mut cluster = Cluster::start(3).await.expect("a cluster");
    replay_through(&mut cluster, async |cluster| {
        let leader = cluster.leader().await.expect("a leader");
        cluster.node(leader).kill().await.expect("killed");
        let next = cluster.leader().await.expect("another leader");
        assert_ne!(next, leader);
        cluster.node(leader).start().expect("started again");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_real_hunt_survives_the_death_of_all_nodes() {
    let mut cluster = Cluster::start(3).await.expect("a cluster");
    replay_through(&mut cluster, async |cluster| {
        for id in 1..=3 {
            cluster.node(id).kill().await.expect("killed");
        }
        cluster.start_all().expect("started again");
        cluster.wait_ready().await.expect("all come back");
    })
    .await;
}
