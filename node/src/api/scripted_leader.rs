//! A leader that does what a test needs of it, behind a real connection.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::{Stream, StreamExt as _};
use huntlog_proto::encoded::event_service_server::{EventService, EventServiceServer};
use huntlog_proto::v1;
use huntlog_proto::v1::append_stream_response::Result as Wire;
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::{Router, TcpIncoming};
use tonic::{Request, Response, Status, Streaming};

use super::call::is_forwarded;
use super::delivery::DeliveryStream;
use super::error::ApiError;
use super::forward::Leader;
use super::forward_guard::ForwardGuard;
use super::status::Operation;
use crate::raft::{MemberNode, NodeId, Peers};

/// A leader that answers so many batches of each stream, and then ends it, or
/// is silent.
pub(super) struct ScriptedLeader {
    answers: usize,
    then_silent: bool,
    streams: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl EventService for ScriptedLeader {
    type AppendStreamStream =
        Pin<Box<dyn Stream<Item = Result<v1::AppendStreamResponse, Status>> + Send>>;
    type ReadStream = DeliveryStream;
    type SubscribeStream = DeliveryStream;

    async fn open_session(
        &self,
        _: Request<v1::OpenSessionRequest>,
    ) -> Result<Response<v1::OpenSessionResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn append(
        &self,
        request: Request<v1::AppendRequest>,
    ) -> Result<Response<v1::AppendResponse>, Status> {
        assert!(is_forwarded(request.metadata()));
        match request
            .into_inner()
            .batch
            .unwrap_or_default()
            .session
            .as_str()
        {
            "refused" => Err(ApiError::NoLeader.into_status(Operation::Write)),
            "silent" => std::future::pending().await,
            session => Ok(Response::new(v1::AppendResponse {
                session: session.to_owned(),
                ..v1::AppendResponse::default()
            })),
        }
    }

    async fn append_stream(
        &self,
        request: Request<Streaming<v1::AppendRequest>>,
    ) -> Result<Response<Self::AppendStreamStream>, Status> {
        assert!(is_forwarded(request.metadata()));
        self.streams.fetch_add(1, Ordering::Relaxed);
        let answers = request.into_inner().take(self.answers).map(|request| {
            let batch = request?.batch.unwrap_or_default();
            Ok(v1::AppendStreamResponse {
                session: batch.session,
                epoch: batch.epoch,
                sequence: batch.sequence,
                result: Some(Wire::Appended(v1::AppendResponse::default())),
            })
        });
        Ok(Response::new(if self.then_silent {
            answers.chain(futures::stream::pending()).boxed()
        } else {
            answers.boxed()
        }))
    }

    async fn read(
        &self,
        _: Request<v1::ReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn subscribe(
        &self,
        _: Request<v1::SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        Err(Status::unimplemented("not scripted"))
    }
}

impl ScriptedLeader {
    /// Starts it; how many streams it has had is counted.
    pub(super) async fn start(
        id: NodeId,
        answers: usize,
        then_silent: bool,
    ) -> (Leader, Arc<AtomicUsize>) {
        let streams = Arc::new(AtomicUsize::new(0));
        let service = EventServiceServer::new(ScriptedLeader {
            answers,
            then_silent,
            streams: streams.clone(),
        });
        let address = serve(Server::builder().add_service(service)).await;
        (leader_at(id, address), streams)
    }

    /// Starts one that takes only what is meant for the node `peers` speaks for.
    pub(super) async fn start_guarded(id: NodeId, peers: Arc<Peers>) -> Leader {
        let leader = ScriptedLeader {
            answers: usize::MAX,
            then_silent: false,
            streams: Arc::default(),
        };
        let service = EventServiceServer::with_interceptor(leader, ForwardGuard::new(peers));
        leader_at(id, serve(Server::builder().add_service(service)).await)
    }
}

/// Serves on a port of its own; answers where.
async fn serve(server: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    address
}

/// Where a leader is looked for.
pub(super) fn leader_at(id: NodeId, peer_address: String) -> Leader {
    Leader {
        id,
        node: MemberNode {
            uuid: String::new(),
            peer_address,
            client_address: "leader:7650".to_owned(),
            ..MemberNode::default()
        },
    }
}
