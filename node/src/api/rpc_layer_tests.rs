use std::convert::Infallible;
use std::future::{Ready, ready};

use tonic_types::StatusExt as _;

use super::*;

/// Answers every request with what it was made with.
#[derive(Clone)]
struct Canned {
    header: Option<&'static str>,
    trailer: Option<&'static str>,
}

/// This node's cluster.
const OWN: &str = "cccccccccccccccccccccccccccccccc";

impl Service<Request<Body>> for Canned {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        let body = self.trailer.map_or_else(Body::empty, |status| {
            let mut trailers = HeaderMap::new();
            trailers.insert(GRPC_STATUS, status.parse().expect("a header value"));
            Body::new(Trailers(Some(trailers)))
        });
        let mut response = Response::new(body);
        if let Some(status) = self.header {
            let status = status.parse().expect("a header value");
            response.headers_mut().insert(GRPC_STATUS, status);
        }
        ready(Ok(response))
    }
}

/// A body of nothing but trailers.
struct Trailers(Option<HeaderMap>);

impl http_body::Body for Trailers {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Poll::Ready(self.0.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }
}

fn layer() -> (RpcLayer, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::new("test", 1, "test"));
    let layer = RpcLayer {
        metrics: metrics.clone(),
        peers: Arc::new(Peers::new(
            LocalIdentity {
                cluster_name: "test".to_owned(),
                cluster_id: OWN.to_owned(),
                node_id: 1,
                node_uuid: "1".repeat(32),
                levels: huntlog_machine::LevelRange::SUPPORTED,
            },
            None,
        )),
    };
    (layer, metrics)
}

fn request() -> Request<Body> {
    Request::builder()
        .uri("/huntlog.v1.EventService/Append")
        .body(Body::empty())
        .expect("a request")
}

/// Whether the code was counted, once.
fn counted(metrics: &Metrics, code: &str) -> bool {
    metrics.encode().lines().any(|line| {
        line.starts_with("huntlog_rpc_total")
            && line.contains("huntlog.v1.EventService/Append")
            && line.contains(&format!("code=\"{code}\""))
            && line.ends_with(" 1")
    })
}

async fn call(canned: Canned, layer: &RpcLayer) -> Response<CountedBody> {
    let answered = layer.layer(canned).call(request()).await;
    answered.unwrap_or_else(|never| match never {})
}

async fn read_to_end(response: Response<CountedBody>) {
    let mut body = response.into_body();
    let mut next = async || {
        std::future::poll_fn(|cx| http_body::Body::poll_frame(Pin::new(&mut body), cx)).await
    };
    while next().await.is_some() {}
}

#[tokio::test]
async fn a_status_in_the_trailers_counts_at_the_end() {
    let (layer, metrics) = layer();
    let canned = Canned {
        header: None,
        trailer: Some("0"),
    };
    let response = call(canned, &layer).await;
    assert!(!counted(&metrics, "OK"));
    read_to_end(response).await;
    assert!(counted(&metrics, "OK"));
}

#[tokio::test]
async fn a_status_without_a_body_counts() {
    let (layer, metrics) = layer();
    let canned = Canned {
        header: Some("14"),
        trailer: None,
    };
    let response = call(canned, &layer).await;
    assert!(http_body::Body::is_end_stream(response.body()));
    drop(response);
    assert!(counted(&metrics, "UNAVAILABLE"));
}

#[tokio::test]
async fn an_answer_nobody_waits_for_counts_as_cancelled() {
    let (layer, metrics) = layer();
    let canned = Canned {
        header: None,
        trailer: Some("0"),
    };
    drop(call(canned.clone(), &layer).await);
    assert!(counted(&metrics, "CANCELLED"));

    let (layer, metrics) = self::layer();
    drop(layer.layer(canned).call(request()));
    assert!(counted(&metrics, "CANCELLED"));
}

/// A request for another cluster reaches no service, and every answer says whose
/// it is.
#[tokio::test]
async fn what_another_cluster_is_meant_for_is_refused() {
    let (layer, metrics) = layer();
    let canned = Canned {
        header: Some("0"),
        trailer: None,
    };
    for (meant, code) in [(None, "0"), (Some(OWN), "0"), (Some("dddd"), "9")] {
        let mut request = request();
        if let Some(meant) = meant {
            let meant = meant.parse().expect("a header value");
            request.headers_mut().insert(CLUSTER_ID_HEADER, meant);
        }
        let answered = layer.layer(canned.clone()).call(request).await;
        let response = answered.unwrap_or_else(|never| match never {});
        let header = |name| response.headers().get(name).expect("named");
        assert_eq!(header(GRPC_STATUS), code, "{meant:?}");
        assert_eq!(header(CLUSTER_ID_HEADER), OWN);
        if code != "0" {
            let status = Status::from_header_map(response.headers()).expect("a status");
            let info = status.get_details_error_info().expect("details");
            assert_eq!(info.reason, "WRONG_CLUSTER");
            assert_eq!(info.metadata["disposition"], "NOT_APPLIED");
            assert_eq!(info.metadata["expected"], "dddd");
            assert_eq!(info.metadata["actual"], OWN);
        }
    }
    assert!(counted(&metrics, "FAILED_PRECONDITION"));
}

#[test]
fn what_the_transport_can_not_take_in_is_the_callers_fault() {
    for (code, message, field) in [
        (
            Code::OutOfRange,
            "Error,%20decoded%20message%20length%20too%20large",
            "batch",
        ),
        (
            Code::Internal,
            "failed%20to%20decode%20Protobuf%20message",
            "message",
        ),
        (
            Code::Internal,
            "protocol%20error:%20invalid%20compression%20flag",
            "message",
        ),
    ] {
        assert_eq!(fault_of(code, message).expect(message).path, field);
    }
    for (code, message) in [
        (Code::Internal, "something%20else"),
        (Code::Unknown, "failed%20to%20decode%20Protobuf%20message"),
    ] {
        assert!(fault_of(code, message).is_none(), "{message}");
    }
}
