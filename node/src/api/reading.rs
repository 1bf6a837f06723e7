//! `Read` and `Subscribe`: where they begin, what they may see, and when they
//! end.

use std::sync::Arc;
use std::time::Duration;

use huntlog_proto::encoded::PageHead;
use huntlog_proto::v1;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout_at;

use super::call::Call;
use super::context::{NodeContext, ServedPartition};
use super::delivery::{DeliveryStream, DeliveryWatch, Stopped, delivery};
use super::error::{ApiError, Resource};
use super::follow::{Follower, Interruption};
use super::forward::Leader;
use super::forward_read::holder;
use super::status::Operation;
use crate::partition::{AppliedMark, EventReader, ReadIndexError};
use crate::telemetry::Metrics;
use crate::wire::{
    FieldFault, InvalidRequest, ReadLevel, consistency_from_proto, filter_from_proto,
};

/// Waits until this node may answer a read of that level; what it has applied
/// then.
pub(super) async fn read_mark(
    served: &ServedPartition,
    level: ReadLevel,
    call: &Call,
) -> Result<AppliedMark, ApiError> {
    let deadline = call.deadline.into_std();
    match level {
        ReadLevel::Linearizable if served.contact.is_silent() => {
            Err(ReadIndexError::NoLeader.into())
        }
        ReadLevel::Linearizable => {
            timeout_at(call.deadline, served.partition.linearizable(deadline))
                .await
                .map_err(|_| ApiError::Deadline)?
                .map_err(ApiError::from)
        }
        ReadLevel::Stale { min_offset } => served
            .partition
            .replica()
            .wait_offset(min_offset, deadline)
            .await
            .map_err(|end| ApiError::Behind {
                asked: min_offset,
                end,
            }),
    }
}

/// How old a stale answer can be; nothing for others.
pub(super) async fn staleness(served: &ServedPartition, level: ReadLevel) -> Option<v1::Staleness> {
    if level == ReadLevel::Linearizable {
        return None;
    }
    let since = served.contact.since(&served.partition).await;
    Some(v1::Staleness {
        since_leader_contact: since.and_then(duration_to_proto),
    })
}

/// A duration, unless it is beyond what the contract can say.
pub(super) fn duration_to_proto(duration: Duration) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(duration).ok()
}

/// A stream of events that has begun, or where it can be.
pub(super) enum Begun<Q> {
    /// On this node.
    Here(DeliveryStream),
    /// This node does not keep what is asked for; another does.
    Elsewhere {
        /// Who.
        holder: Leader,
        /// The first offset wanted.
        from_offset: u64,
        /// What the client asked.
        request: Q,
    },
}

/// Starts a `Read`.
pub(super) async fn start_read(
    context: &Arc<NodeContext>,
    request: v1::ReadRequest,
    call: Call,
) -> Result<Begun<v1::ReadRequest>, ApiError> {
    let asked = request.clone();
    let served = context.to_read(request.partition)?;
    let filter = filter_from_proto(request.filter)?;
    let slot = OpenStream::new(context, context.reserve_read()?, Resource::Reads);
    let level = consistency_from_proto(request.consistency);
    let end = read_mark(served, level, &call).await?;
    if level == ReadLevel::Linearizable && request.from_offset > end.end_offset {
        return Err(ApiError::BeyondEnd {
            asked: request.from_offset,
            end: end.end_offset,
        });
    }
    let staleness = staleness(served, level).await;
    let replica = served.partition.replica().clone();
    let reader = match EventReader::new(replica, request.from_offset, filter).await {
        Ok(reader) => reader,
        Err(error) => {
            return Ok(Begun::Elsewhere {
                holder: holder(served, &call, level != ReadLevel::Linearizable, error)?,
                from_offset: request.from_offset,
                request: asked,
            });
        }
    };
    let (delivery, stream) = delivery(request.from_offset);
    let watch = delivery.watch();
    let budget = context.read_budget().clone();
    let head = PageHead {
        partition: request.partition,
        end_offset: end.end_offset,
        staleness,
        ..PageHead::default()
    };
    let mut follower = Follower::new(reader, delivery, request.max_events, budget, head);
    tokio::spawn(async move {
        let ended = tokio::select! {
            ended = follower.read_to(end) => ended,
            () = watch.abandoned() => return,
            // One that the client has not named is for the beginning only.
            () = tokio::time::sleep_until(call.deadline), if call.deadline_named => {
                Err(Interruption::Failed(ApiError::Deadline))
            }
        };
        slot.conclude(&watch, ended);
    });
    Ok(Begun::Here(stream))
}

/// Starts a `Subscribe`.
pub(super) async fn start_subscribe(
    context: &Arc<NodeContext>,
    request: v1::SubscribeRequest,
    call: Call,
) -> Result<Begun<v1::SubscribeRequest>, ApiError> {
    let asked = request.clone();
    let served = context.to_read(request.partition)?;
    if context.is_draining() {
        return Err(context.why_draining());
    }
    let start = request.start.ok_or_else(missing_start)?;
    let filter = filter_from_proto(request.filter)?;
    let slot = OpenStream::new(
        context,
        context.reserve_subscriber()?,
        Resource::Subscribers,
    );
    let from_offset = first_offset(served, start, &call).await?;
    let replica = served.partition.replica().clone();
    let reader = match EventReader::new(replica.clone(), from_offset, filter).await {
        Ok(reader) => reader,
        Err(error) => {
            return Ok(Begun::Elsewhere {
                holder: holder(served, &call, false, error)?,
                from_offset,
                request: asked,
            });
        }
    };
    let (delivery, stream) = delivery(from_offset);
    let watch = delivery.watch();
    let budget = context.subscriber_budget().clone();
    let head = PageHead {
        partition: request.partition,
        ..PageHead::default()
    };
    let mut follower = Follower::new(reader, delivery, 0, budget, head);
    let context = context.clone();
    tokio::spawn(async move {
        let ended = tokio::select! {
            ended = follower.follow(&replica) => ended,
            () = watch.abandoned() => return,
            () = context.drained() => Err(Interruption::Failed(context.why_draining())),
            () = tokio::time::sleep_until(call.deadline), if call.deadline_named => {
                Err(Interruption::Failed(ApiError::Deadline))
            }
        };
        slot.conclude(&watch, ended);
    });
    Ok(Begun::Here(stream))
}

fn missing_start() -> InvalidRequest {
    InvalidRequest(vec![FieldFault {
        path: "start".to_owned(),
        message: "one of `from_offset` and `from_end` is needed".to_owned(),
    }])
}

/// Where a subscription begins. What this node has not applied yet is waited
/// for, as long as the cluster has it.
async fn first_offset(
    served: &ServedPartition,
    start: v1::subscribe_request::Start,
    call: &Call,
) -> Result<u64, ApiError> {
    use v1::subscribe_request::Start;
    let here = served.partition.replica().tail().mark().end_offset;
    match start {
        Start::FromOffset(offset) if offset <= here => Ok(offset),
        Start::FromOffset(offset) => {
            let end = read_mark(served, ReadLevel::Linearizable, call)
                .await?
                .end_offset;
            if offset > end {
                return Err(ApiError::BeyondEnd { asked: offset, end });
            }
            Ok(offset)
        }
        Start::FromEnd(()) => Ok(read_mark(served, ReadLevel::Linearizable, call)
            .await?
            .end_offset),
    }
}

/// One of the streams that a node has only so many of.
struct OpenStream {
    metrics: Arc<Metrics>,
    resource: Resource,
    _permit: OwnedSemaphorePermit,
}

impl OpenStream {
    fn new(context: &NodeContext, permit: OwnedSemaphorePermit, resource: Resource) -> Self {
        let metrics = context.metrics().clone();
        match resource {
            Resource::Subscribers => metrics.node.subscribers.inc(),
            _ => metrics.node.reads.inc(),
        };
        Self {
            metrics,
            resource,
            _permit: permit,
        }
    }

    /// Tells the client how its stream has ended, unless it knows.
    fn conclude(self, watch: &DeliveryWatch, ended: Result<(), Interruption>) {
        match ended {
            Ok(()) => watch.finish(Ok(())),
            Err(Interruption::Failed(error)) => {
                watch.finish(Err(error.into_status(Operation::Read)));
            }
            Err(Interruption::Stopped(Stopped::Gone)) => {}
            Err(Interruption::Stopped(Stopped::Stalled)) => {
                self.metrics.node.subscribers_dropped.inc();
            }
        }
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        match self.resource {
            Resource::Subscribers => self.metrics.node.subscribers.dec(),
            _ => self.metrics.node.reads.dec(),
        };
    }
}
