//! Around all services: counts requests by method and outcome, names what the
//! transport refuses, and keeps requests for another cluster out.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Frame, SizeHint};
use huntlog_proto::CLUSTER_ID_HEADER;
use pin_project_lite::pin_project;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::context::NodeContext;
use super::error::ApiError;
use super::status::Operation;
use crate::limits;
use crate::raft::{LocalIdentity, Peers};
use crate::telemetry::{Method, Metrics, Side};
use crate::wire::{FieldFault, InvalidRequest};

const GRPC_STATUS: &str = "grpc-status";
const GRPC_MESSAGE: &str = "grpc-message";
const GRPC_DETAILS: &str = "grpc-status-details-bin";

/// Counts the requests that pass through it.
#[derive(Clone)]
pub struct RpcLayer {
    metrics: Arc<Metrics>,
    peers: Arc<Peers>,
}

impl RpcLayer {
    /// Counts into the metrics of `context`.
    pub fn new(context: Arc<NodeContext>) -> Self {
        Self {
            metrics: context.metrics().clone(),
            peers: context.peers().clone(),
        }
    }
}

impl<S> Layer<S> for RpcLayer {
    type Service = RpcCounter<S>;

    fn layer(&self, inner: S) -> RpcCounter<S> {
        RpcCounter {
            inner,
            metrics: self.metrics.clone(),
            peers: self.peers.clone(),
        }
    }
}

/// A service whose requests are counted.
#[derive(Clone)]
pub struct RpcCounter<S> {
    inner: S,
    metrics: Arc<Metrics>,
    peers: Arc<Peers>,
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
        let own = self.peers.identity();
        let refused = wrong_cluster(&own, request.headers());
        CountedCall {
            // A request that is refused goes no further.
            inner: match refused {
                Some(_) => None,
                None => Some(self.inner.call(request)),
            },
            refused,
            cluster: HeaderValue::try_from(own.cluster_id).ok(),
            count: Some(count),
        }
    }
}

/// The refusal of a request that names another cluster than this node's. A node
/// of none answers for itself.
fn wrong_cluster(own: &LocalIdentity, headers: &HeaderMap) -> Option<ApiError> {
    let wanted = headers.get(CLUSTER_ID_HEADER)?.as_bytes();
    let elsewhere = !own.cluster_id.is_empty() && wanted != own.cluster_id.as_bytes();
    elsewhere.then(|| ApiError::WrongCluster {
        wanted: String::from_utf8_lossy(wanted).into_owned(),
        node: own.node_id,
        own: own.cluster_id.clone(),
    })
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
        inner: Option<F>,
        refused: Option<ApiError>,
        cluster: Option<HeaderValue>,
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
        let mut response = match this.inner.as_pin_mut() {
            Some(inner) => named_faults(ready!(inner.poll(cx))?),
            None => {
                let refused = this.refused.take().unwrap_or(ApiError::Dropped);
                refused.into_status(Operation::Write).into_http()
            }
        };
        if let Some(cluster) = this.cluster.take().filter(|id| !id.is_empty()) {
            response.headers_mut().insert(CLUSTER_ID_HEADER, cluster);
        }
        // An answer without a body has its status here.
        if let Some(count) = this.count {
            count.see(response.headers());
        }
        let count = this.count.take();
        Poll::Ready(Ok(response.map(|inner| CountedBody { inner, count })))
    }
}

/// A message that the transport can not take in is refused before any handler
/// sees it, and without details: above its own limit as OUT_OF_RANGE, one that is
/// no such message as INTERNAL. It is answered as the faulty request that it is.
fn named_faults(response: Response<Body>) -> Response<Body> {
    let header = |name| {
        response
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    let Some(message) = header(GRPC_MESSAGE).filter(|_| header(GRPC_DETAILS).is_none()) else {
        return response;
    };
    let code = header(GRPC_STATUS).map_or(Code::Ok, |status| Code::from_bytes(status.as_bytes()));
    // The message is percent-encoded, which leaves its words as they are.
    match fault_of(code, message) {
        Some(fault) => invalid(fault).into_http(),
        None => response,
    }
}

/// The same for a message of a stream.
pub(super) fn named_fault(status: Status) -> Status {
    match fault_of(status.code(), status.message()) {
        Some(fault) if status.details().is_empty() => invalid(fault),
        _ => status,
    }
}

fn invalid(fault: FieldFault) -> Status {
    ApiError::from(InvalidRequest(vec![fault])).into_status(Operation::Write)
}

/// Words of the transport's errors about bytes that are no message.
const GARBAGE: [&str; 4] = ["decode", "compress", "Missing", "EOF"];

/// What is wrong with a request that the transport ends with this status and
/// message, as tonic and prost word them.
fn fault_of(code: Code, message: &str) -> Option<FieldFault> {
    let (path, message) = match code {
        Code::OutOfRange if message.contains("length") => (
            "batch",
            format!(
                "the message is larger than {} bytes; split it",
                limits::CLIENT_MESSAGE_BYTES_MAX
            ),
        ),
        Code::Internal if GARBAGE.iter().any(|word| message.contains(word)) => (
            "message",
            "it does not decode as the message that this method takes".to_owned(),
        ),
        _ => return None,
    };
    Some(FieldFault {
        path: path.to_owned(),
        message,
    })
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
