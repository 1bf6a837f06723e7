//! What the messages prepared for many clients may hold together.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::delivery::{Delivery, Stopped};
use crate::limits;

/// The unit that a budget is counted in.
const UNIT_BYTES: usize = 1024;
/// What a message may come to, reserved before it is made.
#[expect(clippy::cast_possible_truncation, reason = "a message is a few MiB")]
const MESSAGE_UNITS: u32 = limits::READ_MESSAGE_BYTES_MAX.div_ceil(UNIT_BYTES) as u32;

/// A byte budget shared by many deliveries.
///
/// Half of it is for reading ahead. The other half is left to the deliveries
/// whose clients have taken everything, so that clients that take nothing do not
/// keep those waiting that do. And only these wait for room: nobody waits who
/// holds a part of the budget, so that there is room in the end, when others
/// have taken theirs or are given up.
#[derive(Clone)]
pub(super) struct MessageBudget {
    units: Arc<Semaphore>,
    /// As long as so much is free, messages are prepared ahead.
    free_units_to_read_ahead: usize,
}

impl MessageBudget {
    /// Of so many bytes.
    pub(super) fn new(bytes_max: usize) -> Self {
        let units = bytes_max / UNIT_BYTES;
        Self {
            units: Arc::new(Semaphore::new(units)),
            free_units_to_read_ahead: units / 2,
        }
    }

    /// Room for one more message to `delivery`, whatever its size.
    ///
    /// # Errors
    /// When the client takes nothing of what is prepared for it for too long.
    pub(super) async fn reserve(
        &self,
        delivery: &Delivery,
    ) -> Result<OwnedSemaphorePermit, Stopped> {
        if self.units.available_permits() >= self.free_units_to_read_ahead
            && let Ok(ahead) = self.units.clone().try_acquire_many_owned(MESSAGE_UNITS)
        {
            return Ok(ahead);
        }
        delivery.emptied().await?;
        let permit = self.units.clone().acquire_many_owned(MESSAGE_UNITS).await;
        Ok(permit.expect("it is never closed"))
    }
}

/// What of `permit` a message of `bytes` needs; the rest is free again.
pub(super) fn shrink(mut permit: OwnedSemaphorePermit, bytes: usize) -> OwnedSemaphorePermit {
    let used = (bytes / UNIT_BYTES + 1).min(permit.num_permits());
    permit
        .split(used)
        .expect("no more is split off than there is")
}
