//! The README's commands do what it says, on a real cluster.

use std::path::Path;

use huntlog_jepsen::Cluster;
use serde_json::Value;

use crate::support::{huntctl, succeed};

/// The block of the README that begins with `first`, by command; a document
/// that is written to a file stays with its command.
fn commands_of_the_readme(first: &str) -> Vec<String> {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let text = std::fs::read_to_string(readme).expect("the README is there");
    let start = text.find(first).expect("the README has this block");
    let block = &text[start..];
    let end = block.find("```").expect("blocks end");
    let mut commands: Vec<String> = Vec::new();
    let mut in_document = false;
    for line in block[..end].lines() {
        match commands.last_mut() {
            Some(command) if in_document => {
                command.push('\n');
                command.push_str(line);
                in_document = line != "END";
            }
            _ => {
                in_document = line.contains("<<'END'");
                commands.push(line.to_owned());
            }
        }
    }
    commands
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_readme_s_hunt_can_be_played() {
    let cluster = Cluster::start(3).await.expect("a cluster");
    let bin = huntlog_jepsen::binary("huntctl").expect("huntctl is built");
    let bin = bin.parent().expect("a directory").display().to_string();
    let path = std::env::var("PATH").unwrap_or_default();
    for command in commands_of_the_readme("cat > pier.toml") {
        if command.contains("huntctl replay FILE.csv") {
            // Has tests of its own.
            continue;
        }
        let output = tokio::process::Command::new("sh")
            .args(["-e", "-c", &command])
            .current_dir(cluster.dir())
            .env("PATH", format!("{bin}:{path}"))
            .env("HUNTLOG_ENDPOINTS", cluster.endpoints().join(","))
            .output()
            .await
            .expect("there is a shell");
        assert!(
            output.status.success(),
            "{command}\n{}\n{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let mut scoreboard = huntctl(&cluster.endpoints());
    scoreboard.args(["-o", "json", "hunt", "scoreboard", "pier"]);
    let answer = succeed(scoreboard).await;
    let rows: Value = serde_json::from_slice(&answer.stdout).expect("JSON");
    let text = rows.to_string();
    assert!(text.contains("\"player\":\"ada\""), "{text}");
    assert!(text.contains("\"points\":5"), "{text}");

    for noun in [
        vec!["cluster", "status"],
        vec!["cluster", "health"],
        vec!["session", "list"],
        vec!["hunt", "list"],
        vec!["hunt", "get", "pier"],
        vec!["player", "get", "pier", "ada"],
        vec!["snapshot"],
        vec!["leader", "transfer"],
    ] {
        let mut command = huntctl(&cluster.endpoints());
        command.args(noun);
        succeed(command).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_generated_hunt_is_played_and_verified() {
    let cluster = Cluster::start(3).await.expect("a cluster");
    let ledger = cluster.dir().join("ledger");
    let mut play = huntctl(&cluster.endpoints());
    play.args(["play", "--hunt", "made-up", "--seed", "7", "--ledger"])
        .arg(&ledger);
    succeed(play).await;
    let mut verify = huntctl(&cluster.endpoints());
    verify.arg("verify").arg("--ledger").arg(&ledger);
    succeed(verify).await;
}
