//! A batch under way. To a history each of its values is an operation of its own,
//! and each operation has a process of its own.

use huntlog_client::AppendError;
use huntlog_client::proto::event_outcome::Outcome;
use huntlog_client::proto::{Event, EventOutcome};

use super::is_not_applied;
use super::key::{Place, value_event};
use crate::history::{Append, Client, Op, OpenOp};

/// Values of a batch at most.
pub(super) const BATCH_MAX: usize = 16;

/// The appends of one batch, which are answered together.
pub(super) struct Batch<'a> {
    op: fn(Append) -> Op,
    open: Vec<(OpenOp<'a>, Append)>,
}

/// The events that carry the values of `appends`.
pub(super) fn events(appends: &[Append]) -> Vec<Event> {
    let event = |append: &Append| value_event(&append.key, append.v);
    appends.iter().map(event).collect()
}

impl<'a> Batch<'a> {
    /// Begins all of `appends`, each by one of as many clients, as `op`: an append
    /// or a resend.
    pub(super) fn invoke(
        clients: &'a mut [Client],
        appends: Vec<Append>,
        op: fn(Append) -> Op,
    ) -> Self {
        debug_assert!(appends.len() <= clients.len());
        let begin = |(client, append): (&'a mut Client, Append)| {
            (client.invoke(op(append.clone())), append)
        };
        Self {
            op,
            open: clients.iter_mut().zip(appends).map(begin).collect(),
        }
    }

    /// Ends them with the outcomes of their events. Answers them with their
    /// offsets, and the place of the last; nothing unless all were accepted.
    pub(super) fn answered(
        self,
        outcomes: Option<&Vec<EventOutcome>>,
    ) -> Option<(Vec<Append>, Place)> {
        let places = outcomes.and_then(|outcomes| places(outcomes, self.open.len()));
        let Some(places) = places else {
            let why = format!("answered {outcomes:?}");
            self.end(|open| open.info(&why));
            return None;
        };
        let last = *places.last()?;
        let mut appends = Vec::with_capacity(places.len());
        for ((open, mut append), place) in self.open.into_iter().zip(places) {
            append.offset = Some(place.in_key);
            open.ok((self.op)(append.clone()));
            appends.push(append);
        }
        Some((appends, last))
    }

    /// Ends them with what the library says of the batch.
    pub(super) fn unacknowledged(self, error: &AppendError) {
        if is_not_applied(error) {
            self.end(|open| open.fail(error));
        } else {
            self.unknown(error);
        }
    }

    /// Ends them: nobody knows what became of the batch.
    pub(super) fn unknown(self, why: impl std::fmt::Display) {
        self.end(|open| open.info(&why));
    }

    fn end(self, end: impl Fn(OpenOp<'a>)) {
        for (open, _) in self.open {
            end(open);
        }
    }
}

/// The places of `count` events, if all were accepted.
fn places(outcomes: &[EventOutcome], count: usize) -> Option<Vec<Place>> {
    let place = |outcome: &EventOutcome| match outcome.outcome.as_ref()? {
        Outcome::Accepted(accepted) => Some(Place::of(accepted)),
        Outcome::Rejected(_) => None,
    };
    let places: Vec<Place> = outcomes.iter().filter_map(place).collect();
    (places.len() == count).then_some(places)
}

#[cfg(test)]
mod tests {
    use huntlog_client::Cause;
    use huntlog_client::proto::Accepted;

    use super::*;
    use crate::history::{Kind, Recorder};

    fn appends() -> Vec<Append> {
        let append = |v| Append {
            key: "h".to_owned(),
            producer: "p".to_owned(),
            seq: 1,
            v,
            batch: Some(3),
            ..Append::default()
        };
        (1..=3).map(append).collect()
    }

    fn accepted(revision: u64) -> EventOutcome {
        EventOutcome {
            outcome: Some(Outcome::Accepted(Accepted {
                revision,
                ..Accepted::default()
            })),
        }
    }

    /// The kinds of the events, and the offsets of those that are ok.
    fn recorded(end: impl FnOnce(Batch<'_>)) -> (Vec<Kind>, Vec<Option<u64>>) {
        let recorder = Recorder::new(|| 0);
        let mut clients: Vec<Client> = (0..BATCH_MAX).map(|_| recorder.client()).collect();
        end(Batch::invoke(&mut clients, appends(), Op::Append));
        let history = recorder.history();
        let ends = &history.events()[3..];
        let offset = |op: &Op| match op {
            Op::Append(append) => append.offset,
            _ => None,
        };
        (
            ends.iter().map(|event| event.kind).collect(),
            ends.iter().map(|event| offset(&event.op)).collect(),
        )
    }

    #[test]
    fn each_value_is_an_operation_with_an_offset_of_its_own() {
        let outcomes = (2..5).map(accepted).collect();
        let (kinds, offsets) = recorded(|batch| {
            let (appends, last) = batch.answered(Some(&outcomes)).expect("accepted");
            assert_eq!((appends.len(), last.in_key), (3, 2));
        });
        assert_eq!(kinds, [Kind::Ok; 3]);
        assert_eq!(offsets, [Some(0), Some(1), Some(2)]);
    }

    #[test]
    fn of_a_batch_that_is_not_answered_whole_nothing_is_known() {
        let too_few = vec![accepted(2)];
        for outcomes in [Some(&too_few), None] {
            let (kinds, _) = recorded(|batch| assert!(batch.answered(outcomes).is_none()));
            assert_eq!(kinds, [Kind::Info; 3]);
        }
    }

    #[test]
    fn a_time_out_is_of_unknown_fate_and_a_refusal_is_not() {
        let end = |cause| {
            let error = AppendError::NotApplied { cause };
            recorded(|batch| batch.unacknowledged(&error)).0
        };
        assert_eq!(end(Cause::DeadlineExceeded { last: None }), [Kind::Info; 3]);
        assert_eq!(end(Cause::Fenced), [Kind::Fail; 3]);
    }
}
