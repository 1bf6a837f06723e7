use std::convert::Infallible;
use std::future::{Ready, ready};

use super::*;

/// Answers every request with what it was made with.
#[derive(Clone)]
struct Canned {
    header: Option<&'static str>,
    trailer: Option<&'static str>,
}

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
