//! The port as its users see it: over a socket.

use std::{net::SocketAddr, sync::Arc};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
};

use super::*;

struct Served {
    address: SocketAddr,
    health: Health,
    metrics: Arc<Metrics>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

async fn serve() -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let metrics = Arc::new(Metrics::new("0.1.0", 1, "harbour"));
    let health = Health::starting();
    let server = AdminServer::new(Box::new(listener), Arc::clone(&metrics), health.clone());
    let (stop, stopped) = oneshot::channel();
    Served {
        address: server.local_address().expect("bound"),
        health,
        metrics,
        stop,
        task: tokio::spawn(server.serve(async {
            let _ = stopped.await;
        })),
    }
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).expect("JSON")
    }
}

async fn get(address: SocketAddr, path: &str) -> Answer {
    let mut connection = TcpStream::connect(address).await.expect("connects");
    let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
    connection
        .write_all(request.as_bytes())
        .await
        .expect("sends");
    let mut answer = String::new();
    connection
        .read_to_string(&mut answer)
        .await
        .expect("answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Answer {
        status: status.expect("a status code"),
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    }
}

#[tokio::test]
async fn readyz_names_every_reason_until_there_is_none() {
    let node = serve().await;
    node.health
        .report(TroubleKind::NoLeader, Some(0), "an election is on");
    let answer = get(node.address, "/readyz").await;
    assert_eq!(answer.status, 503);
    assert_eq!(
        answer.json(),
        serde_json::json!({
            "ready": false,
            "reasons": [
                {"code": "starting", "message": "the node is starting"},
                {"code": "no_leader", "partition": 0, "message": "an election is on"},
            ],
            "warnings": [],
        })
    );

    node.health.resolve(TroubleKind::NoLeader, Some(0));
    node.health.resolve(TroubleKind::Starting, None);
    node.health.warn(Warning::ClockSkew, "1.4 s ahead");
    let answer = get(node.address, "/readyz").await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.json(),
        serde_json::json!({
            "ready": true,
            "reasons": [],
            "warnings": [{"code": "clock_skew", "message": "1.4 s ahead"}],
        })
    );
}

#[tokio::test]
async fn livez_is_about_failure_only() {
    let node = serve().await;
    let answer = get(node.address, "/livez").await;
    assert_eq!(answer.status, 200, "starting is alive");
    assert_eq!(answer.json(), serde_json::json!({"live": true}));

    node.health.resolve(TroubleKind::Starting, None);
    node.health.fail("fsync failed");
    let answer = get(node.address, "/livez").await;
    assert_eq!(answer.status, 503);
    assert_eq!(
        answer.json(),
        serde_json::json!({"live": false, "failure": "fsync failed"})
    );
    let answer = get(node.address, "/readyz").await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["reasons"][0]["code"], "failed");
}

#[tokio::test]
async fn metrics_are_open_metrics_text() {
    let node = serve().await;
    node.metrics.partition(0).replica.term.set(4);
    let answer = get(node.address, "/metrics").await;
    assert_eq!(answer.status, 200);
    let content_type = format!("content-type: {}", Metrics::CONTENT_TYPE);
    assert!(answer.head.contains(&content_type), "{}", answer.head);
    assert!(answer.body.contains("huntlog_term{partition=\"0\"} 4\n"));
    assert!(answer.body.contains("huntlog_ready 0\n"));
    assert!(answer.body.ends_with("# EOF\n"));

    node.health.resolve(TroubleKind::Starting, None);
    let answer = get(node.address, "/metrics").await;
    assert!(answer.body.contains("huntlog_ready 1\n"));
}

#[tokio::test]
async fn other_paths_and_methods_are_refused() {
    let node = serve().await;
    assert_eq!(get(node.address, "/").await.status, 404);
    let mut connection = TcpStream::connect(node.address).await.expect("connects");
    let request = b"POST /metrics HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n";
    connection.write_all(request).await.expect("sends");
    let mut answer = String::new();
    connection
        .read_to_string(&mut answer)
        .await
        .expect("answers");
    assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
}

#[tokio::test]
async fn it_stops_although_a_connection_stays_open() {
    let node = serve().await;
    let mut idle = TcpStream::connect(node.address).await.expect("connects");
    ask(&mut idle).await;

    node.stop.send(()).expect("still serving");
    let deadline = limits::ADMIN_DRAIN_TIMEOUT * 5;
    tokio::time::timeout(deadline, node.task)
        .await
        .expect("stops in time")
        .expect("without a panic");
    TcpStream::connect(node.address)
        .await
        .expect_err("nobody listens any more");
}

/// Sends a request on a connection that stays open, and reads its answer.
async fn ask(connection: &mut TcpStream) {
    let request = b"GET /livez HTTP/1.1\r\nHost: node\r\n\r\n";
    connection.write_all(request).await.expect("sends");
    let mut answer = Vec::new();
    while !answer.ends_with(b"}") {
        assert_ne!(connection.read_buf(&mut answer).await.expect("answers"), 0);
    }
}

#[tokio::test]
async fn connections_past_the_limit_wait_for_their_turn() {
    let node = serve().await;
    let mut held = Vec::new();
    for _ in 0..limits::ADMIN_CONNECTIONS_MAX {
        let mut connection = TcpStream::connect(node.address).await.expect("connects");
        ask(&mut connection).await;
        held.push(connection);
    }
    let mut one_more = TcpStream::connect(node.address).await.expect("queued");
    let request = b"GET /livez HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n";
    one_more.write_all(request).await.expect("sends");
    // The server has all this time to serve it, and must not.
    for connection in &mut held {
        ask(connection).await;
    }
    let early = one_more
        .try_read(&mut [0])
        .expect_err("served past the limit");
    assert_eq!(early.kind(), io::ErrorKind::WouldBlock);

    drop(held.pop());
    let mut answer = String::new();
    one_more
        .read_to_string(&mut answer)
        .await
        .expect("its turn has come");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
