//! What any gRPC client or scraper expects of a server works without our
//! library: health, reflection, metrics, probes.

use huntlog_jepsen::{Cluster, channel};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::support::get;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_reflection_metrics_and_probes_answer() {
    let mut cluster = Cluster::start(3).await.expect("a cluster");
    let leader = cluster.leader().await.expect("a leader");
    let spec = cluster.node(leader).spec().clone();
    let channel = channel(&spec.client_address()).await.expect("it listens");

    let mut health = HealthClient::new(channel.clone());
    for service in ["", "huntlog.v1.EventService", "huntlog.v1.HuntService"] {
        let request = HealthCheckRequest {
            service: service.into(),
        };
        let answer = health.check(request).await.expect("known").into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }

    let mut reflection = ServerReflectionClient::new(channel);
    let request = ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..ServerReflectionRequest::default()
    };
    let mut answers = reflection
        .server_reflection_info(tokio_stream::once(request))
        .await
        .expect("it answers")
        .into_inner();
    let answer = answers.message().await.expect("an answer").expect("one");
    let Some(MessageResponse::ListServicesResponse(services)) = answer.message_response else {
        panic!("{answer:?}");
    };
    let names: Vec<_> = services.service.into_iter().map(|s| s.name).collect();
    for service in ["EventService", "HuntService", "AdminService"] {
        let name = format!("huntlog.v1.{service}");
        assert!(names.contains(&name), "{name} is not among {names:?}");
    }

    let metrics = get(&spec.admin_address(), "/metrics").await;
    for family in [
        "huntlog_proposals_total",
        "huntlog_entry_bytes_bucket",
        "huntlog_proposer_queue_batches",
        "huntlog_storage_sync_seconds_bucket",
        "huntlog_commit_seconds_bucket",
        "huntlog_apply_seconds_bucket",
        "huntlog_leader_changes_total",
        "huntlog_sessions",
        "huntlog_applied_log_index",
    ] {
        assert!(metrics.contains(family), "{family} is not in\n{metrics}");
    }
    for probe in ["/livez", "/readyz"] {
        let answer = get(&spec.admin_address(), probe).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{probe}: {answer}");
    }

    // Without a quorum the node lives and is not ready.
    for id in (1..=3).filter(|id| *id != leader) {
        cluster.node(id).kill().await.expect("killed");
    }
    cluster
        .wait_for("the node noticing that nobody leads", async || {
            let ready = get(&spec.admin_address(), "/readyz").await;
            ready.starts_with("HTTP/1.1 503").then_some(())
        })
        .await
        .expect("it notices");
    let live = get(&spec.admin_address(), "/livez").await;
    assert!(live.starts_with("HTTP/1.1 200"), "{live}");
}
