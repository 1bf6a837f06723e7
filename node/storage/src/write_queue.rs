//! The one ordered queue of all partitions' writes, and the writer's step.

use crate::error::WriteError;
use crate::limits::{BATCH_BYTES_MAX, QUEUE_BYTES_MAX};
use crate::partition::Done;
use crate::segment::{Frame, FrameKind};
use crate::shared::Shared;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;

/// A queued write: frames of one partition that are written in one batch.
pub(crate) struct Operation {
    /// Counts all operations of this life, from 1; entries in the tail carry it.
    pub stamp: u64,
    pub frames: Vec<Frame>,
    pub bytes: usize,
    pub done: Option<Done>,
}

impl Operation {
    pub(crate) fn finish(mut self, result: Result<(), WriteError>) {
        if let Some(done) = self.done.take() {
            done(result);
        }
    }
}

#[derive(Default)]
pub(crate) struct WriteQueue {
    state: Mutex<QueueState>,
    work: Condvar,
    room: Condvar,
}

#[derive(Default)]
struct QueueState {
    operations: VecDeque<Operation>,
    /// Bytes queued or being written.
    bytes: usize,
    stamps: u64,
    refusing: bool,
}

impl WriteQueue {
    /// Waits while too much is queued; the writer makes room.
    pub(crate) fn wait_for_room(&self) {
        let mut state = self.state.lock();
        while state.bytes > QUEUE_BYTES_MAX && !state.refusing {
            self.room.wait(&mut state);
        }
    }

    /// Queues operations that follow one another, all or none, and returns the first one's stamp; `done` is called when
    /// the last one is durable, and handed back when the queue takes nothing more.
    pub(crate) fn push(&self, operations: Vec<Vec<Frame>>, done: Done) -> Result<u64, Done> {
        let mut state = self.state.lock();
        if state.refusing {
            return Err(done);
        }
        let first_stamp = state.stamps + 1;
        for frames in operations {
            state.stamps += 1;
            let bytes = frames.iter().map(Frame::encoded_bytes).sum();
            state.bytes += bytes;
            let stamp = state.stamps;
            state.operations.push_back(Operation {
                stamp,
                frames,
                bytes,
                done: None,
            });
        }
        if let Some(last) = state.operations.back_mut() {
            last.done = Some(done);
        }
        self.work.notify_one();
        Ok(first_stamp)
    }

    /// What the next batch holds: as much as is queued, up to the batch limit, and at least one operation.
    fn take(&self) -> (Vec<Operation>, usize) {
        let mut state = self.state.lock();
        let mut bytes = 0;
        let mut count = 0;
        for operation in &state.operations {
            if count > 0 && bytes + operation.bytes > BATCH_BYTES_MAX {
                break;
            }
            bytes += operation.bytes;
            count += 1;
        }
        let batch = state.operations.drain(..count).collect();
        (batch, state.operations.len())
    }

    fn release(&self, bytes: usize) {
        let mut state = self.state.lock();
        state.bytes -= bytes.min(state.bytes);
        self.room.notify_all();
    }

    /// Waits for work; `false` when closed and empty.
    pub(crate) fn wait(&self) -> bool {
        let mut state = self.state.lock();
        while state.operations.is_empty() {
            if state.refusing {
                return false;
            }
            self.work.wait(&mut state);
        }
        true
    }

    /// Takes no more operations; those queued are still written.
    pub(crate) fn close(&self) {
        self.state.lock().refusing = true;
        self.work.notify_all();
        self.room.notify_all();
    }

    /// Takes no more operations and hands out those queued.
    pub(crate) fn abandon(&self) -> Vec<Operation> {
        let mut state = self.state.lock();
        state.refusing = true;
        state.bytes = 0;
        self.work.notify_all();
        self.room.notify_all();
        state.operations.drain(..).collect()
    }

    pub(crate) fn queued(&self) -> usize {
        self.state.lock().operations.len()
    }
}

impl Shared {
    /// Writes and syncs one batch of what is queued, then completes it; `false` if nothing was queued.
    pub(crate) fn write_step(&self) -> bool {
        if self.fatal().is_some() {
            return false;
        }
        let (operations, queued) = self.queue.take();
        let Some(last) = operations.last() else {
            return false;
        };
        let last_stamp = last.stamp;
        let frames: Vec<&Frame> = operations
            .iter()
            .flat_map(|operation| &operation.frames)
            .collect();
        if frames.is_empty() {
            // Everything queued before is durable, and these ask for nothing more.
            operations
                .into_iter()
                .for_each(|operation| operation.finish(Ok(())));
            return true;
        }
        let written = self.engine.lock().write(&frames);
        let (updates, stats) = match written {
            Ok(written) => written,
            Err(error) => {
                let error = self.fail(error);
                for operation in operations {
                    operation.finish(Err(WriteError::Fatal(error.clone())));
                }
                return true;
            }
        };

        let mut bytes = 0;
        let mut released = false;
        for operation in &operations {
            bytes += operation.bytes;
            if let Some(frame) = operation.frames.last() {
                let partition = self.partition(frame.partition);
                let mut live = partition.live.write();
                match &frame.kind {
                    FrameKind::Vote(vote) => live.durable_vote = Some(*vote),
                    FrameKind::Entry { id, .. } => live.became_durable(id.index, operation.stamp),
                    FrameKind::Release { .. } => released = true,
                    _ => {}
                }
            }
        }
        for operation in operations {
            operation.finish(Ok(()));
        }
        self.queue.release(bytes);
        self.progress.notify();
        self.options
            .metrics
            .batch_synced(&stats.with_queued(queued));
        self.index_queue
            .push_updates(self, updates, last_stamp, bytes);

        if released {
            let segments = self.engine.lock().take_released();
            if let Err(error) = self.segments.remove(&segments) {
                self.fail(error);
            }
        }
        true
    }
}
