//! Recording by many clients at once.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::op::{Fault, Op};
use super::{Event, History, Kind, Process};

/// Takes down what happens. Clients share it; an event's index and time are
/// given under one lock, so that the order of the history is the order of time.
pub struct Recorder {
    /// Nanoseconds since the start of the run: a real clock's or a simulation's.
    now_ns: Box<dyn Fn() -> u64 + Send + Sync>,
    observer: Box<dyn Fn(&Event) + Send + Sync>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    events: Vec<Event>,
    next_process: u64,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}

impl Recorder {
    /// A recorder whose events have the times that `now_ns` says.
    pub fn new(now_ns: impl Fn() -> u64 + Send + Sync + 'static) -> Arc<Self> {
        Self::observed(now_ns, |_| {})
    }

    /// The same; `observer` is shown each event as it is recorded, in order.
    pub fn observed(
        now_ns: impl Fn() -> u64 + Send + Sync + 'static,
        observer: impl Fn(&Event) + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            now_ns: Box::new(now_ns),
            observer: Box::new(observer),
            state: Mutex::default(),
        })
    }

    /// A new client, under a number of its own.
    pub fn client(self: &Arc<Self>) -> Client {
        Client {
            recorder: Arc::clone(self),
            number: self.new_number(),
        }
    }

    /// Takes down that a fault was injected or healed.
    pub fn fault(&self, fault: Fault) {
        self.push(Process::Nemesis, Kind::Info, Op::Fault(fault), None);
    }

    /// What has been recorded so far.
    pub fn history(&self) -> History {
        History {
            events: self.state().events.clone(),
        }
    }

    fn new_number(&self) -> u64 {
        let mut state = self.state();
        state.next_process += 1;
        state.next_process - 1
    }

    fn push(&self, process: Process, kind: Kind, op: Op, error: Option<String>) {
        let mut state = self.state();
        let event = Event {
            index: state.events.len() as u64,
            time_ns: (self.now_ns)(),
            process,
            kind,
            op,
            error,
        };
        (self.observer)(&event);
        state.events.push(event);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One client: at most one operation at a time.
#[derive(Debug)]
pub struct Client {
    recorder: Arc<Recorder>,
    number: u64,
}

impl Client {
    /// Begins an operation. Must be ended by what it is told of its fate; one
    /// that is dropped, as when its task is, is of unknown fate.
    pub fn invoke(&mut self, op: Op) -> OpenOp<'_> {
        let process = Process::Client(self.number);
        let op = op.invocation();
        self.recorder.push(process, Kind::Invoke, op.clone(), None);
        OpenOp {
            client: self,
            op: Some(op),
        }
    }

    /// The number it has now.
    pub fn number(&self) -> u64 {
        self.number
    }
}

/// An operation under way.
#[derive(Debug)]
#[must_use = "an operation that is dropped is recorded as of unknown fate"]
pub struct OpenOp<'a> {
    client: &'a mut Client,
    /// None once it has ended.
    op: Option<Op>,
}

impl OpenOp<'_> {
    /// It has happened; `answered` is the operation with its answer.
    pub fn ok(mut self, answered: Op) {
        debug_assert_eq!(answered.missing_answer(), None, "{answered:?}");
        self.end(Kind::Ok, Some(answered), None);
    }

    /// It has not happened and never will.
    pub fn fail(mut self, why: impl fmt::Display) {
        self.end(Kind::Fail, None, Some(why.to_string()));
    }

    /// It may have happened, or may yet. The client goes on under a new number.
    pub fn info(mut self, why: impl fmt::Display) {
        self.end(Kind::Info, None, Some(why.to_string()));
    }

    fn end(&mut self, kind: Kind, answered: Option<Op>, error: Option<String>) {
        let Some(invoked) = self.op.take() else {
            return;
        };
        let process = Process::Client(self.client.number);
        let recorder = &self.client.recorder;
        recorder.push(process, kind, answered.unwrap_or(invoked), error);
        if kind == Kind::Info {
            self.client.number = recorder.new_number();
        }
    }
}

impl Drop for OpenOp<'_> {
    fn drop(&mut self) {
        self.end(Kind::Info, None, Some("given up".to_owned()));
    }
}
