//! One `AppendStream` call, from connecting to its end.

use std::sync::Arc;

use huntlog_proto::{CLUSTER_ID_HEADER, v1};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use crate::cluster::{Cluster, LEADER_HEADER};
use crate::encoding::EncodedAppendRequest;
use crate::limits;

const METHOD: &str = "/huntlog.v1.EventService/AppendStream";

#[derive(Debug)]
pub(super) enum StreamEvent {
    /// Requests may be sent.
    Connected,
    /// The node forwards to this one.
    Leader(String),
    Answer(v1::AppendStreamResponse),
    /// Nothing more comes, for this reason.
    Ended(String),
}

pub(super) type Requests = mpsc::Sender<EncodedAppendRequest>;

#[derive(Debug)]
pub(super) struct AppendStream {
    requests: Requests,
    events: mpsc::Receiver<StreamEvent>,
    task: JoinHandle<()>,
}

impl AppendStream {
    pub(super) fn open(cluster: &Arc<Cluster>, address: &Arc<str>) -> Self {
        let (requests, outgoing) = mpsc::channel(limits::STREAM_QUEUE_REQUESTS);
        let (event_sender, events) = mpsc::channel(limits::STREAM_QUEUE_REQUESTS);
        let (cluster, address) = (Arc::clone(cluster), Arc::clone(address));
        let task = tokio::spawn(async move {
            let why = match run(&cluster, &address, outgoing, &event_sender).await {
                Ok(()) => "the node ended it".to_owned(),
                Err(why) => why,
            };
            let _ = event_sender.send(StreamEvent::Ended(why)).await;
        });
        Self {
            requests,
            events,
            task,
        }
    }

    pub(super) fn requests(&self) -> Requests {
        self.requests.clone()
    }

    pub(super) fn has_room(&self) -> bool {
        self.requests.capacity() > 0 || self.requests.is_closed()
    }

    /// Hands a request to the transport, which must have room. When the
    /// transport is gone, its last event says so.
    pub(super) fn send(&self, request: EncodedAppendRequest) {
        let _ = self.requests.try_send(request);
    }

    pub(super) fn try_next(&mut self) -> Option<StreamEvent> {
        self.events.try_recv().ok()
    }
}

impl Drop for AppendStream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The stream's next event; never ready without a stream.
pub(super) async fn next(stream: Option<&mut AppendStream>) -> StreamEvent {
    match stream {
        Some(stream) => stream
            .events
            .recv()
            .await
            .unwrap_or_else(|| StreamEvent::Ended("its task ended".to_owned())),
        None => std::future::pending().await,
    }
}

/// Ready once the queue has room for a request.
pub(super) async fn room(requests: Option<Requests>) {
    match requests {
        Some(requests) => drop(requests.reserve().await),
        None => std::future::pending().await,
    }
}

async fn run(
    cluster: &Cluster,
    address: &str,
    outgoing: mpsc::Receiver<EncodedAppendRequest>,
    events: &mpsc::Sender<StreamEvent>,
) -> Result<(), String> {
    let say = |error: Box<dyn std::error::Error>| chain(&*error);
    // A connection of its own: bulk of one lane never waits behind another's.
    let channel = cluster
        .way(address)
        .connect()
        .await
        .map_err(|e| say(e.into()))?;
    if events.send(StreamEvent::Connected).await.is_err() {
        return Ok(());
    }
    let mut grpc =
        tonic::client::Grpc::new(channel).max_decoding_message_size(limits::MESSAGE_BYTES);
    grpc.ready().await.map_err(|e| say(e.into()))?;
    let codec: ProstCodec<EncodedAppendRequest, v1::AppendStreamResponse> = ProstCodec::default();
    let mut request = Request::new(ReceiverStream::new(outgoing));
    if let Some(id) = cluster.id_header() {
        request.metadata_mut().insert(CLUSTER_ID_HEADER, id);
    }
    let response = grpc
        .streaming(request, PathAndQuery::from_static(METHOD), codec)
        .await
        .map_err(|status: Status| {
            let foreign = cluster.check_headers(address, status.metadata()).err();
            foreign.map_or_else(|| say(status.into()), |foreign| foreign.message)
        })?;
    let checked = cluster.check_headers(address, response.metadata());
    checked.map_err(|foreign| foreign.message)?;
    if let Some(leader) = response.metadata().get(LEADER_HEADER)
        && let Ok(leader) = leader.to_str()
    {
        let _ = events.send(StreamEvent::Leader(leader.to_owned())).await;
    }
    let mut answers = response.into_inner();
    while let Some(answer) = answers
        .message()
        .await
        .map_err(|status| say(status.into()))?
    {
        if events.send(StreamEvent::Answer(answer)).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let text = error.to_string();
        if !words.contains(&text) {
            words = format!("{words}: {text}");
        }
        source = error.source();
    }
    words
}
