//! Clocks an hour apart: no hunt ends early, and time does not freeze.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use huntlog_client::event;
use huntlog_client::proto::admin_service_client::AdminServiceClient;
use huntlog_client::proto::event_service_client::EventServiceClient;
use huntlog_client::proto::hunt_service_client::HuntServiceClient;
use huntlog_client::proto::{
    AppendRequest, Batch, Clue, Event, GetHuntRequest, HuntDefinition, HuntState,
    OpenSessionRequest, TransferLeaderRequest,
};
use huntlog_jepsen::{Cluster, channel};

use crate::support::get;

/// The library that shifts a process's clock, where it is installed.
fn libfaketime() -> Option<PathBuf> {
    std::fs::read_dir("/usr/lib")
        .ok()?
        .flatten()
        .map(|entry| entry.path().join("faketime/libfaketime.so.1"))
        .find(|library| library.is_file())
}

fn now_seconds() -> i64 {
    let age = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    i64::try_from(age.as_secs()).expect("some 10^9")
}

fn hunt(id: &str, starts_in: i64, ends_in: i64) -> Event {
    let at = |seconds| {
        Some(prost_types::Timestamp {
            seconds: now_seconds() + seconds,
            nanos: 0,
        })
    };
    let definition = HuntDefinition {
        clues: vec![Clue {
            id: "a".to_owned(),
            answers: vec!["b".to_owned()],
            ..Clue::default()
        }],
        starts_at: at(starts_in),
        ends_at: at(ends_in),
        ..HuntDefinition::default()
    };
    event::hunt_created(id, definition)
}

async fn clocks_apart(library: &Path, shift: &str) {
    let mut cluster = Cluster::prepare(3, "").expect("files");
    let shifted = cluster.node(2);
    shifted.set_env("LD_PRELOAD", &library.display().to_string());
    shifted.set_env("FAKETIME", shift);
    shifted.set_env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    cluster.start_all().expect("started");
    cluster.wait_ready().await.expect("ready");

    // The wrong clock stamps the log.
    let leader = cluster.leader().await.expect("a leader");
    let address = cluster.node(leader).spec().client_address();
    let mut admin = AdminServiceClient::new(channel(&address).await.expect("it listens"));
    if leader != 2 {
        admin
            .transfer_leader(TransferLeaderRequest {
                partition: 0,
                to_node_id: 2,
            })
            .await
            .expect("handed over");
    }
    assert_eq!(cluster.leader().await.expect("a leader"), 2);
    let spec = cluster.node(2).spec().clone();
    let channel = channel(&spec.client_address()).await.expect("it listens");
    let mut events = EventServiceClient::new(channel.clone());
    let session = OpenSessionRequest {
        partition: 0,
        session: "s".to_owned(),
        nonce: vec![1; 16].into(),
        epoch: 0,
    };
    let epoch = events
        .open_session(session)
        .await
        .expect("opened")
        .into_inner()
        .epoch;
    let batch = Batch {
        session: "s".to_owned(),
        epoch,
        sequence: 1,
        // One that runs for half an hour, and one that starts in a moment.
        events: vec![hunt("long", -3_600, 1_800), hunt("soon", 2, 1_800)],
        expected_revisions: Vec::new(),
    };
    let appended = events
        .append(AppendRequest {
            partition: 0,
            batch: Some(batch),
        })
        .await
        .expect("appended")
        .into_inner();
    let stamp = appended.committed_at.expect("a stamp").seconds;
    assert!(
        (stamp - now_seconds()).abs() <= 3,
        "stamped {stamp}, {} s from now",
        stamp - now_seconds()
    );

    let hunts = HuntServiceClient::new(channel);
    cluster
        .wait_for("the clock starting both hunts", async || {
            for id in ["long", "soon"] {
                let request = GetHuntRequest {
                    partition: 0,
                    hunt: id.to_owned(),
                    consistency: None,
                };
                let hunt = hunts.clone().get_hunt(request).await.ok()?.into_inner();
                let state = hunt.hunt?.state();
                assert_ne!(state, HuntState::Finished, "{id} ended early");
                if state != HuntState::Running {
                    return None;
                }
            }
            Some(())
        })
        .await
        .expect("time goes on");
    let late = now_seconds() - stamp;
    assert!(
        late < Duration::from_secs(15).as_secs().cast_signed(),
        "{late} s"
    );

    // An operator is told.
    cluster
        .wait_for("the skew in the metrics", async || {
            let metrics = get(&spec.admin_address(), "/metrics").await;
            let skew = metrics
                .lines()
                .find_map(|line| line.strip_prefix("huntlog_clock_skew_seconds "))?;
            let skew: f64 = skew.parse().ok()?;
            (skew.abs() > 3_500.0).then_some(())
        })
        .await
        .expect("it is measured");
    cluster
        .wait_for("a warning beside its readiness", async || {
            let ready = get(&spec.admin_address(), "/readyz").await;
            assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
            ready.contains("clock_skew").then_some(())
        })
        .await
        .expect("it is told");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_an_hour_ahead_ends_no_hunt_early() {
    match libfaketime() {
        Some(library) => clocks_apart(&library, "+3600s").await,
        None => eprintln!("skipped: there is no libfaketime"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_an_hour_behind_does_not_freeze_time() {
    match libfaketime() {
        Some(library) => clocks_apart(&library, "-3600s").await,
        None => eprintln!("skipped: there is no libfaketime"),
    }
}
