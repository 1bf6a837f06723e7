//! Around all services: counts requests by method and outcome, and names what
//! the transport refuses.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::context::NodeContext;
use super::error::ApiError;
use super::status::Operation;
use crate::limits;
use crate::telemetry::{Method, Metrics, Side};
use crate::wire::{FieldFault, InvalidRequest};

const GRPC_STATUS: &str = "grpc-status";
const GRPC_MESSAGE: &str = "grpc-message";
const GRPC_DETAILS: &str = "grpc-status-details-bin";

/// Counts the requests that pass through it.
#[derive(Clone)]
pub struct RpcLayer {
    metrics: Arc<Metrics>,
}

impl RpcLayer {
    /// Counts into the metrics of `context`.
    pub fn new(context: Arc<NodeContext>) -> Self {
        Self {
            metrics: context.metrics().clone(),
        }
    }
}

impl<S> Layer<S> for RpcLayer {
    type Service = RpcCounter<S>;

    fn layer(&self, inner: S) -> RpcCounter<S> {
        RpcCounter {
            inner,
            metrics: self.metrics.clone(),
        }
    }
}

/// A service whose requests are counted.
#[derive(Clone)]
pub struct RpcCounter<S> {
    inner: S,
    metrics: Arc<Metrics>,
}

impl<S> Service<Request<Body>> for RpcCounter<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Response = Response<CountedBody>;
    type Error = S::Error;
    type Future = CountedCall<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let count = Count {
            metrics: self.metrics.clone(),
            method: Method::from_path(request.uri().path()),
            arrived: Instant::now(),
            outcome: None,
        };
        CountedCall {
            inner: self.inner.call(request),
            count: Some(count),
        }
    }
}

/// A request on its way; counted as cancelled when nobody waits for its end.
struct Count {
    metrics: Arc<Metrics>,
    method: Method,
    arrived: Instant,
    outcome: Option<Code>,
}

impl Count {
    /// The first outcome that is seen counts.
    fn see(&mut self, headers: &HeaderMap) {
        if self.outcome.is_none()
            && let Some(status) = headers.get(GRPC_STATUS)
        {
            self.outcome = Some(Code::from_bytes(status.as_bytes()));
        }
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        let code = self.outcome.unwrap_or(Code::Cancelled);
        self.metrics.rpc.observe(
            Side::Server,
            self.method,
            code.into(),
            self.arrived.elapsed(),
        );
    }
}

pin_project! {
    /// A request being answered.
    pub struct CountedCall<F> {
        #[pin]
        inner: F,
        count: Option<Count>,
    }
}

impl<F, E> Future for CountedCall<F>
where
    F: Future<Output = Result<Response<Body>, E>>,
{
    type Output = Result<Response<CountedBody>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = named_oversize(ready!(this.inner.poll(cx))?);
        // An answer without a body has its status here.
        if let Some(count) = this.count {
            count.see(response.headers());
        }
        let count = this.count.take();
        Poll::Ready(Ok(response.map(|inner| CountedBody { inner, count })))
    }
}

/// A message above the transport's own limit is refused before any handler sees
/// it, as OUT_OF_RANGE and without details; it is answered as the too large
/// request that it is.
fn named_oversize(response: Response<Body>) -> Response<Body> {
    let header = |name| {
        response
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    let oversized = header(GRPC_STATUS) == Some("11")
        && header(GRPC_DETAILS).is_none()
        && header(GRPC_MESSAGE).is_some_and(|message| message.contains("length"));
    if !oversized {
        return response;
    }
    let fault = FieldFault {
        path: "batch".to_owned(),
        message: format!(
            "the message is larger than {} bytes; split it",
            limits::CLIENT_MESSAGE_BYTES_MAX
        ),
    };
    ApiError::from(InvalidRequest(vec![fault]))
        .into_status(Operation::Write)
        .into_http()
}

/// An answer whose end is counted.
pub struct CountedBody {
    inner: Body,
    count: Option<Count>,
}

impl http_body::Body for CountedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.inner).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let (Some(trailers), Some(count)) = (frame.trailers_ref(), &mut this.count) {
                    count.see(trailers);
                }
            }
            Some(Err(status)) => {
                if let Some(count) = &mut this.count {
                    count.outcome = Some(status.code());
                }
            }
            None => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
#[path = "rpc_layer_tests.rs"]
mod tests;
