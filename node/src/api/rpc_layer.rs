//! Counts requests by method and outcome, around all services.

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
use crate::telemetry::{Method, Metrics, Side};

const GRPC_STATUS: &str = "grpc-status";

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
        let response = ready!(this.inner.poll(cx))?;
        // An answer without a body has its status here.
        if let Some(count) = this.count {
            count.see(response.headers());
        }
        let count = this.count.take();
        Poll::Ready(Ok(response.map(|inner| CountedBody { inner, count })))
    }
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
