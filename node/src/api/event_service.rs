//! `EventService`: submitting events, and reading them back.

use std::sync::Arc;

use huntlog_machine::{CommandResult, FIRST_LEVEL};
use huntlog_proto::encoded::Page;
use huntlog_proto::encoded::event_service_client::EventServiceClient;
use huntlog_proto::encoded::event_service_server::EventService;
use huntlog_proto::v1;
use prost::Message as _;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use super::append::{batch_answer, committed, missing_batch};
use super::append_stream::AppendStream;
use super::call::{Call, LEADER, add_header, is_forwarded};
use super::context::{NodeContext, Route, ServedPartition};
use super::delivery::DeliveryStream;
use super::error::ApiError;
use super::forward::forward_unary;
use super::forward_read::forward_read;
use super::reading::{Begun, start_read, start_subscribe};
use super::status::Operation;
use crate::connections::ConnectionInfo;
use crate::limits;
use crate::wire::{batch_command, level_needed, open_session_command, open_session_response};

/// Serves `EventService`.
pub struct EventApi {
    context: Arc<NodeContext>,
}

impl EventApi {
    /// Serves it for `context`.
    pub fn new(context: Arc<NodeContext>) -> Self {
        Self { context }
    }

    /// The partition, and where a write to it goes.
    fn route(&self, partition: u32, call: &Call) -> Result<(&ServedPartition, Route), Status> {
        let served = self.context.to_write(partition).map_err(refused)?;
        let route = served.route(call.forwarded).map_err(refused)?;
        Ok((served, route))
    }

    /// The stream that has begun here, or that another node is asked for with
    /// `ask`. An `endless` one ends when this node drains.
    async fn begun<Q, F>(
        &self,
        begun: Result<Begun<Q>, ApiError>,
        call: Call,
        endless: bool,
        ask: impl FnOnce(EventServiceClient<Channel>, Request<Q>) -> F,
    ) -> Result<Response<DeliveryStream>, Status>
    where
        F: Future<Output = Result<Response<Streaming<Page>>, Status>>,
    {
        let stream = match begun.map_err(|error| error.into_status(Operation::Read))? {
            Begun::Here(stream) => stream,
            Begun::Elsewhere {
                holder,
                from_offset,
                request,
            } => {
                let context = &self.context;
                forward_read(context, holder, call, from_offset, endless, request, ask).await?
            }
        };
        Ok(Response::new(stream))
    }
}

fn refused(error: ApiError) -> Status {
    error.into_status(Operation::Write)
}

#[tonic::async_trait]
impl EventService for EventApi {
    async fn open_session(
        &self,
        request: Request<v1::OpenSessionRequest>,
    ) -> Result<Response<v1::OpenSessionResponse>, Status> {
        let call = Call::new(request.metadata());
        let request = request.into_inner();
        let (served, route) = self.route(request.partition, &call)?;
        match route {
            Route::Local => open_session_here(served, &call, &request)
                .await
                .map(Response::new)
                .map_err(refused),
            Route::Forward(leader) => {
                let _room = self
                    .context
                    .reserve_append(request.encoded_len())
                    .map_err(refused)?;
                forward_unary(
                    &self.context,
                    &served.metrics,
                    &leader,
                    &call,
                    request,
                    async |channel, request| {
                        EventServiceClient::new(channel).open_session(request).await
                    },
                )
                .await
            }
        }
    }

    async fn append(
        &self,
        request: Request<v1::AppendRequest>,
    ) -> Result<Response<v1::AppendResponse>, Status> {
        let call = Call::new(request.metadata());
        let share = ConnectionInfo::share_in(request.extensions());
        let request = request.into_inner();
        let _counted = share
            .map(|share| share.count(request.encoded_len()))
            .transpose()
            .map_err(|used_up| refused(used_up.into()))?;
        let (served, route) = self.route(request.partition, &call)?;
        match route {
            Route::Local => append_here(served, &call, request)
                .await
                .map(Response::new)
                .map_err(refused),
            Route::Forward(leader) => {
                // A leader of an earlier release would not know what is meant.
                let needed = request.batch.as_ref().map_or(FIRST_LEVEL, level_needed);
                let understood = served.partition.check_leaders_level(leader.id, needed);
                understood.map_err(|error| refused(error.into()))?;
                let _room = self
                    .context
                    .reserve_append(request.encoded_len())
                    .map_err(refused)?;
                forward_unary(
                    &self.context,
                    &served.metrics,
                    &leader,
                    &call,
                    request,
                    async |channel, request| {
                        EventServiceClient::new(channel)
                            .max_encoding_message_size(limits::CLIENT_MESSAGE_BYTES_MAX)
                            .max_decoding_message_size(limits::CLIENT_MESSAGE_BYTES_MAX)
                            .append(request)
                            .await
                    },
                )
                .await
            }
        }
    }

    type AppendStreamStream = AppendStream;

    async fn append_stream(
        &self,
        request: Request<Streaming<v1::AppendRequest>>,
    ) -> Result<Response<AppendStream>, Status> {
        let forwarded = is_forwarded(request.metadata());
        let share = ConnectionInfo::share_in(request.extensions());
        let requests = request.into_inner();
        let stream = AppendStream::new(self.context.clone(), requests, forwarded, share);
        let mut response = Response::new(stream);
        // Which partitions the batches are for is not known yet; a smart client
        // learns the leader of the first one.
        if let Some(served) = self.context.partitions().next()
            && let Ok(Route::Forward(leader)) = served.route(forwarded)
        {
            add_header(response.metadata_mut(), LEADER, &leader.node.client_address);
        }
        Ok(response)
    }

    type ReadStream = DeliveryStream;

    async fn read(
        &self,
        request: Request<v1::ReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let call = Call::new(request.metadata());
        let begun = start_read(&self.context, request.into_inner(), call).await;
        let ask = async |mut client: EventServiceClient<_>, request| client.read(request).await;
        self.begun(begun, call, false, ask).await
    }

    type SubscribeStream = DeliveryStream;

    async fn subscribe(
        &self,
        request: Request<v1::SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let call = Call::new(request.metadata());
        let begun = start_subscribe(&self.context, request.into_inner(), call).await;
        let ask =
            async |mut client: EventServiceClient<_>, request| client.subscribe(request).await;
        self.begun(begun, call, true, ask).await
    }
}

async fn open_session_here(
    served: &ServedPartition,
    call: &Call,
    request: &v1::OpenSessionRequest,
) -> Result<v1::OpenSessionResponse, ApiError> {
    let receiver = served.partition.submit(open_session_command(request)?)?;
    match committed(receiver, call).await?.result {
        CommandResult::SessionOpened {
            epoch,
            last_sequence,
            fresh,
        } => Ok(open_session_response(
            request.partition,
            epoch,
            last_sequence,
            fresh,
        )),
        CommandResult::SessionRefused(refusal) => Err(refusal.into()),
        CommandResult::Batch(_) | CommandResult::Level(_) => {
            unreachable!("an opening is answered as an opening")
        }
    }
}

async fn append_here(
    served: &ServedPartition,
    call: &Call,
    request: v1::AppendRequest,
) -> Result<v1::AppendResponse, ApiError> {
    let named = batch_command(request.batch.ok_or_else(missing_batch)?)?;
    let receiver = served.partition.submit(named.command)?;
    let committed = committed(receiver, call).await?;
    batch_answer(request.partition, named.session, named.sequence, committed)
}
