//! The two gRPC ports.
//!
//! The client port serves the public contract, with health and reflection. The
//! peer port serves the peer protocol, and the public services again for what
//! other nodes forward to the leader.

use std::sync::Arc;

use huntlog_proto::FILE_DESCRIPTOR_SET;
use huntlog_proto::encoded::event_service_server::EventServiceServer;
use huntlog_proto::peer::peer_service_server::PeerServiceServer;
use huntlog_proto::v1::admin_service_server::AdminServiceServer;
use huntlog_proto::v1::hunt_service_server::HuntServiceServer;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::service::Routes;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::admin_http::Health;
use crate::api::{AdminApi, EventApi, ForwardGuard, HuntApi, NodeContext};
use crate::cluster::{PeerServer, PeerState};
use crate::connections::{Acceptor, http2_connections};
use crate::host::Listen;
use crate::limits;
use crate::server::{NodeError, until};

/// The services that health answers for; the empty name is the node.
const HEALTH_SERVICES: [&str; 4] = [
    "",
    "huntlog.v1.EventService",
    "huntlog.v1.HuntService",
    "huntlog.v1.AdminService",
];

/// Why the gRPC ports could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The descriptors built into the binary do not decode.
    #[error("reflection can not be served: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// The two running servers.
pub(crate) struct GrpcServers {
    /// Each holds one sender; all gone means drained.
    running: tokio::sync::mpsc::Receiver<()>,
}

impl GrpcServers {
    /// Serves both ports until `stopped`.
    pub(crate) fn start(
        client_port: Box<dyn Listen>,
        peer_port: Box<dyn Listen>,
        context: Arc<NodeContext>,
        peer_state: Arc<PeerState>,
        stopped: watch::Receiver<bool>,
        tasks: &mut JoinSet<Result<(), NodeError>>,
    ) -> Result<Self, ListenError> {
        let (running, drained) = tokio::sync::mpsc::channel(1);
        let (reporter, health) = tonic_health::server::health_reporter();
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        tasks.spawn(report_health(reporter, context.health().clone()));

        let public = public_routes(&context)
            .add_service(health)
            .add_service(reflection().build_v1()?)
            // What Python's grpcio-reflection and older grpcurls speak.
            .add_service(reflection().build_v1alpha()?);
        let client_server = Server::builder()
            .initial_stream_window_size(limits::CLIENT_STREAM_WINDOW_BYTES)
            .initial_connection_window_size(limits::CLIENT_CONNECTION_WINDOW_BYTES)
            .max_concurrent_streams(limits::CLIENT_STREAMS_PER_CONNECTION_MAX)
            .http2_max_header_list_size(limits::CLIENT_HEADERS_BYTES_MAX)
            .http2_keepalive_interval(Some(limits::CLIENT_KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(limits::CLIENT_KEEPALIVE_TIMEOUT))
            .layer(crate::api::RpcLayer::new(context.clone()))
            .add_routes(public);
        let incoming = http2_connections(
            Acceptor::new(client_port, limits::CLIENT_CONNECTIONS_MAX)
                .for_clients(context.metrics().clone()),
        );
        tasks.spawn(serve(
            client_server.serve_with_incoming_shutdown(incoming, until(stopped.clone())),
            running.clone(),
        ));

        let peers = forwarded_routes(&context).add_service(
            PeerServiceServer::new(PeerServer::new(peer_state))
                .max_decoding_message_size(limits::PEER_MESSAGE_BYTES_MAX)
                .max_encoding_message_size(limits::PEER_MESSAGE_BYTES_MAX),
        );
        let peer_server = Server::builder()
            .initial_stream_window_size(limits::PEER_STREAM_WINDOW_BYTES)
            .initial_connection_window_size(limits::PEER_CONNECTION_WINDOW_BYTES)
            .max_concurrent_streams(limits::PEER_STREAMS_PER_CONNECTION_MAX)
            .http2_max_pending_accept_reset_streams(Some(limits::PEER_RESETS_PENDING_MAX))
            .http2_max_header_list_size(limits::CLIENT_HEADERS_BYTES_MAX)
            .http2_keepalive_interval(Some(limits::PEER_KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(limits::PEER_KEEPALIVE_TIMEOUT))
            .add_routes(peers);
        let incoming = http2_connections(Acceptor::new(peer_port, limits::PEER_CONNECTIONS_MAX));
        tasks.spawn(serve(
            peer_server.serve_with_incoming_shutdown(incoming, until(stopped)),
            running,
        ));
        Ok(Self { running: drained })
    }

    /// Waits until open requests have ended, but not for longer than
    /// [`limits::DRAIN_TIMEOUT`].
    pub(crate) async fn drained(&mut self) {
        let all_ended = async { while self.running.recv().await.is_some() {} };
        if tokio::time::timeout(limits::DRAIN_TIMEOUT, all_ended)
            .await
            .is_err()
        {
            tracing::warn!("some requests were still open at the end");
        }
    }
}

fn public_routes(context: &Arc<NodeContext>) -> Routes {
    Routes::new(events(context))
        .add_service(HuntServiceServer::new(HuntApi::new(context.clone())))
        .add_service(AdminServiceServer::new(AdminApi::new(context.clone())))
}

/// The same, for what other nodes forward to this one.
fn forwarded_routes(context: &Arc<NodeContext>) -> Routes {
    let guard = ForwardGuard::new(context.peers().clone());
    let hunts = HuntServiceServer::new(HuntApi::new(context.clone()));
    let admin = AdminServiceServer::new(AdminApi::new(context.clone()));
    Routes::new(InterceptedService::new(events(context), guard.clone()))
        .add_service(InterceptedService::new(hunts, guard.clone()))
        .add_service(InterceptedService::new(admin, guard))
}

fn events(context: &Arc<NodeContext>) -> EventServiceServer<EventApi> {
    let largest = limits::READ_MESSAGE_BYTES_MAX.max(limits::CLIENT_MESSAGE_BYTES_MAX);
    EventServiceServer::new(EventApi::new(context.clone()))
        .max_decoding_message_size(limits::CLIENT_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(largest)
}

async fn serve(
    server: impl Future<Output = Result<(), tonic::transport::Error>>,
    running: tokio::sync::mpsc::Sender<()>,
) -> Result<(), NodeError> {
    let ended = server.await;
    drop(running);
    ended.map_err(|error| NodeError::Panicked(format!("a gRPC port stopped: {error}")))
}

/// Keeps the standard health service at what the node reports.
async fn report_health(reporter: HealthReporter, health: Health) -> Result<(), NodeError> {
    let mut watch = health.watch();
    loop {
        let status = if watch.borrow_and_update().is_ready() {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        for service in HEALTH_SERVICES {
            reporter.set_service_status(service, status).await;
        }
        if watch.changed().await.is_err() {
            return Ok(());
        }
    }
}
