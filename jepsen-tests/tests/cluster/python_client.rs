//! A client that is not ours: stubs generated in Python drive a cluster whose
//! nodes start, freeze and die at its word.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use huntlog_jepsen::{Cluster, NodeProcess};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;

/// The interpreter in the virtual environment that `scripts/test` makes, where
/// it could.
fn interpreter() -> Option<PathBuf> {
    let own = std::env::current_exe().expect("a test has a binary");
    own.ancestors()
        .map(|directory| directory.join("python/bin/python"))
        .find(|python| python.is_file())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_stubs_drive_a_cluster_through_the_table_of_answers() {
    run("client_test.py", "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_stubs_are_told_where_the_retained_history_begins() {
    run("retention_test.py", "[retention]\nmax_age_seconds = 1\n").await;
}

/// Runs `program` with three nodes whose configuration has `extra` sections.
#[expect(clippy::print_stderr, reason = "a test that is skipped says why")]
async fn run(program: &str, extra: &str) {
    let Some(python) = interpreter() else {
        eprintln!("skipped: jepsen-tests/python/environment has not been run");
        return;
    };
    let mut cluster = Cluster::prepare(3, extra).expect("files");
    let program = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("python")
        .join(program);
    let mut client = Command::new(python)
        .arg(program)
        .args(cluster.endpoints())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("python starts");
    let mut answers = client.stdin.take().expect("it is piped");
    let mut deeds = BufReader::new(client.stdout.take().expect("it is piped")).lines();
    let mut done = false;
    loop {
        let next = tokio::time::timeout(Duration::from_secs(60), deeds.next_line())
            .await
            .unwrap_or_else(|_| panic!("nothing happens any more\n{}", cluster.last_lines()));
        let Some(deed) = next.expect("its words can be read") else {
            break;
        };
        if deed == "done" {
            done = true;
            continue;
        }
        let answer = perform(&mut cluster, &deed).await;
        answers
            .write_all(format!("{answer}\n").as_bytes())
            .await
            .expect("it listens");
    }
    let status = client.wait().await.expect("a child of ours");
    assert!(
        status.success() && done,
        "the client ended with {status}\n{}",
        cluster.last_lines()
    );
}

/// Does what the client asks for, and answers it.
async fn perform(cluster: &mut Cluster, deed: &str) -> String {
    match deed {
        "ready" => cluster.wait_ready().await.expect("they become ready"),
        "leader" => return cluster.leader().await.expect("a leader").to_string(),
        deed => {
            let (deed, id) = deed.split_once(' ').expect("a deed is done to a node");
            let node = cluster.node(id.parse().expect("a node's id"));
            perform_on(node, deed).await.expect(deed);
        }
    }
    "ok".to_owned()
}

async fn perform_on(
    node: &mut NodeProcess,
    deed: &str,
) -> Result<(), huntlog_jepsen::ProcessError> {
    match deed {
        "start" => node.start(),
        "kill" => node.kill().await,
        "terminate" => node.terminate(),
        "ended" => node.wait().await.map(drop),
        "pause" => node.pause(),
        "resume" => node.resume(),
        other => panic!("`{other}` is no deed"),
    }
}
