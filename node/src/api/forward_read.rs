//! Reading from another node what this one does not keep: history before a
//! snapshot that it was sent, or that its retention has given up.

use std::sync::Arc;

use huntlog_proto::encoded::Page;
use huntlog_proto::encoded::event_service_client::EventServiceClient;
use prost::Message as _;
use tokio::time::timeout_at;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use super::call::Call;
use super::context::{NodeContext, ServedPartition};
use super::delivery::{Delivery, DeliveryStream, Stopped, delivery};
use super::error::ApiError;
use super::forward::{Leader, describe, is_from_huntlog};
use super::status::Operation;
use crate::limits;
use crate::partition::{HistoryElsewhere, ReadEventsError};
use crate::raft::Purpose;

/// Who has the events that this node does not, as `error` says.
///
/// # Errors
/// OUT_OF_RANGE, with the earliest offset that any node has, when nobody has
/// them; UNAVAILABLE while that is not certain, when the request was forwarded
/// already (one hop), or when it asks for this node's `own_copy`.
pub(super) fn holder(
    served: &ServedPartition,
    call: &Call,
    own_copy: bool,
    error: ReadEventsError,
) -> Result<Leader, ApiError> {
    let ReadEventsError::BeforeHistory { asked, earliest } = error else {
        return Err(error.into());
    };
    match served.partition.history_elsewhere(asked) {
        HistoryElsewhere::At { id, node } if !call.forwarded && !own_copy => {
            Ok(Leader { id, node })
        }
        HistoryElsewhere::Nowhere { earliest: others } => Err(ReadEventsError::BeforeHistory {
            asked,
            earliest: others.map_or(earliest, |others| others.min(earliest)),
        }
        .into()),
        HistoryElsewhere::At { .. } | HistoryElsewhere::Unknown => {
            Err(ApiError::KeptElsewhere { asked, earliest })
        }
    }
}

/// Has `holder` answer `message`, and passes on what it sends at the client's
/// pace; a few messages are held here at once.
///
/// # Errors
/// When the holder can not be reached.
pub(super) async fn forward_read<Q, F>(
    context: &Arc<NodeContext>,
    holder: Leader,
    call: Call,
    from_offset: u64,
    ends_when_draining: bool,
    message: Q,
    send: impl FnOnce(EventServiceClient<Channel>, Request<Q>) -> F,
) -> Result<DeliveryStream, Status>
where
    F: Future<Output = Result<Response<Streaming<Page>>, Status>>,
{
    let refused = |error: ApiError| error.into_status(Operation::Read);
    let place = context.reserve_forwarded_read().map_err(refused)?;
    // Apart from what is forwarded to the leader: a reader that takes its time
    // must not fill the window that acknowledgements come through.
    let channel = holder.channel(context, Purpose::Read).map_err(refused)?;
    let client = EventServiceClient::new(channel)
        .max_decoding_message_size(limits::CLIENT_MESSAGE_BYTES_MAX);
    let mut request = holder.request(context, message);
    if call.deadline_named {
        request.set_timeout(call.time_left());
    }
    let answered = timeout_at(call.deadline, send(client, request)).await;
    let mut pages = match answered {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => return Err(failure(&holder, status)),
        Err(_) => return Err(refused(ApiError::Deadline)),
    };
    let (delivery, stream) = delivery(from_offset);
    let watch = delivery.watch();
    let context = context.clone();
    tokio::spawn(async move {
        let ended = tokio::select! {
            ended = pass_on(&mut pages, &delivery) => ended.map_err(|status| failure(&holder, status)),
            () = watch.abandoned() => return,
            () = context.drained(), if ends_when_draining => Err(refused(context.why_draining())),
        };
        drop(place);
        watch.finish(ended);
    });
    Ok(stream)
}

async fn pass_on(pages: &mut Streaming<Page>, delivery: &Delivery) -> Result<(), Status> {
    while let Some(mut page) = pages.message().await? {
        // It grew while it was decoded; what is queued counts by its size.
        page.events = page.events.take();
        let size_bytes = page.encoded_len();
        match delivery.send(page, size_bytes, None).await {
            Ok(()) => {}
            // The client went away, or the delivery has told it that it stalled.
            Err(Stopped::Gone | Stopped::Stalled) => return Ok(()),
        }
    }
    Ok(())
}

/// What the client is told when the holder, or the way to it, fails.
fn failure(holder: &Leader, status: Status) -> Status {
    if is_from_huntlog(&status) {
        let details = status.details().to_vec().into();
        return Status::with_details(status.code(), status.message(), details);
    }
    ApiError::HolderLost {
        holder: holder.id,
        cause: describe(&status),
    }
    .into_status(Operation::Read)
}
