//! The rules one by one.

use std::collections::BTreeMap;

use tonic::Code;

use super::*;
use crate::error::Reason;

const SECOND: Moment = Duration::from_secs(1);

pub(super) fn config() -> SequencerConfig {
    SequencerConfig {
        window: 4,
        answer_timeout: Duration::from_secs(5),
        seed: 1,
    }
}

fn open(last_sequence: u64) -> Sequencer<&'static str, u64> {
    let mut session = Sequencer::new(config());
    assert!(session.wants_opening());
    session.opened(10, last_sequence, last_sequence == 0);
    session
}

pub(super) fn refusal(reason: Reason, disposition: Disposition, expected: Option<u64>) -> Refusal {
    Refusal {
        code: Code::Unavailable,
        reason,
        message: String::new(),
        disposition,
        retry_after: None,
        metadata: expected.map_or_else(BTreeMap::new, |expected| {
            BTreeMap::from([("expected".to_owned(), expected.to_string())])
        }),
        violations: Vec::new(),
    }
}

fn not_applied(reason: Reason) -> Result<u64, Refusal> {
    Err(refusal(reason, Disposition::NotApplied, None))
}

fn unknown(reason: Reason) -> Result<u64, Refusal> {
    Err(refusal(reason, Disposition::Unknown, None))
}

fn gap(expected: u64) -> Result<u64, Refusal> {
    Err(refusal(
        Reason::SequenceGap,
        Disposition::NotApplied,
        Some(expected),
    ))
}

fn submit(session: &mut Sequencer<&'static str, u64>, names: &[&'static str]) {
    for name in names {
        session
            .submit(name, Numbering::Next, 60 * SECOND)
            .expect("in turn");
    }
}

fn send_all(session: &mut Sequencer<&'static str, u64>, now: Moment) -> Vec<(u64, &'static str)> {
    let mut sent = Vec::new();
    while let Some(out) = session.next_send(now) {
        sent.push((out.sequence, *out.payload));
    }
    sent
}

fn outcomes(
    session: &mut Sequencer<&'static str, u64>,
) -> Vec<(&'static str, Result<u64, Disposition>)> {
    session
        .take_resolved()
        .into_iter()
        .map(|done| (done.payload, done.result.map_err(|e| e.disposition())))
        .collect()
}

#[test]
fn batches_are_pipelined_up_to_the_window() {
    let mut session = open(7);
    submit(&mut session, &["a", "b", "c", "d", "e"]);
    assert_eq!(
        send_all(&mut session, SECOND),
        [(8, "a"), (9, "b"), (10, "c"), (11, "d")]
    );
    session.answered(10, 8, Ok(100), SECOND);
    assert_eq!(send_all(&mut session, SECOND), [(12, "e")]);
    assert_eq!(outcomes(&mut session), [("a", Ok(100))]);
}

#[test]
fn a_lost_stream_sends_all_unresolved_again_in_order_under_their_numbers() {
    let mut session = open(0);
    submit(&mut session, &["a", "b", "c"]);
    send_all(&mut session, SECOND);
    session.answered(10, 1, Ok(1), SECOND);
    session.stream_lost();
    assert_eq!(send_all(&mut session, SECOND), [(2, "b"), (3, "c")]);
}

#[test]
fn after_a_refusal_all_in_flight_is_answered_before_anything_goes_again() {
    let mut session = open(0);
    submit(&mut session, &["a", "b", "c"]);
    send_all(&mut session, SECOND);
    assert!(matches!(
        session.answered(10, 1, not_applied(Reason::NoLeader), SECOND),
        Advice::Unavailable(_)
    ));
    assert_eq!(send_all(&mut session, SECOND), []);
    session.answered(10, 2, gap(1), SECOND);
    assert_eq!(send_all(&mut session, SECOND), []);
    session.answered(10, 3, gap(1), SECOND);
    assert_eq!(
        send_all(&mut session, SECOND),
        [(1, "a"), (2, "b"), (3, "c")]
    );
}

#[test]
fn overload_holds_the_session_back_and_the_timer_says_until_when() {
    let mut session = open(0);
    submit(&mut session, &["a"]);
    send_all(&mut session, SECOND);
    let mut full = refusal(Reason::Overloaded, Disposition::NotApplied, None);
    full.retry_after = Some(SECOND);
    session.answered(10, 1, Err(full), SECOND);
    let resume = session.next_timer().expect("it waits");
    assert!(resume >= 2 * SECOND && resume < 3 * SECOND);
    assert_eq!(send_all(&mut session, resume - Duration::from_nanos(1)), []);
    assert!(!session.tick(resume));
    assert_eq!(send_all(&mut session, resume), [(1, "a")]);
}

/// I10
#[test]
fn unknown_is_sticky_over_later_refusals() {
    let mut session = open(0);
    submit(&mut session, &["a"]);
    send_all(&mut session, SECOND);
    session.answered(10, 1, unknown(Reason::LeadershipLost), SECOND);
    send_all(&mut session, SECOND);
    session.answered(10, 1, not_applied(Reason::NoLeader), SECOND);
    assert!(!session.tick(60 * SECOND));
    assert_eq!(outcomes(&mut session), [("a", Err(Disposition::Unknown))]);
}

/// I10
#[test]
fn a_deadline_is_not_applied_only_when_every_attempt_was_refused_for_certain() {
    let mut session = open(0);
    submit(&mut session, &["never sent"]);
    assert!(!session.tick(60 * SECOND));
    assert_eq!(
        outcomes(&mut session),
        [("never sent", Err(Disposition::NotApplied))]
    );

    submit(&mut session, &["unanswered"]);
    send_all(&mut session, 60 * SECOND);
    assert!(session.tick(120 * SECOND), "its stream counts as dead");
    assert_eq!(
        outcomes(&mut session),
        [("unanswered", Err(Disposition::Unknown))]
    );
}

#[test]
fn a_hole_with_nothing_sent_behind_it_closes_in_place() {
    let mut session = open(0);
    submit(&mut session, &["a", "b"]);
    let out = session.next_send(SECOND).expect("open");
    assert_eq!((out.sequence, *out.payload), (1, "a"));
    session.answered(10, 1, not_applied(Reason::Invalid), SECOND);
    assert_eq!(
        outcomes(&mut session),
        [("a", Err(Disposition::NotApplied))]
    );
    assert_eq!(send_all(&mut session, SECOND), [(1, "b")]);
    assert!(!session.wants_opening());
}

#[test]
fn a_hole_closes_in_place_when_what_is_behind_was_refused_for_certain() {
    let mut session = open(0);
    submit(&mut session, &["a", "b"]);
    send_all(&mut session, SECOND);
    session.answered(10, 1, not_applied(Reason::Invalid), SECOND);
    session.answered(10, 2, gap(1), SECOND);
    assert_eq!(send_all(&mut session, SECOND), [(1, "b")]);
}

/// I3: a copy of "b" may still arrive as number 2; it must not get number 1
/// before a new epoch fences that copy.
#[test]
fn a_hole_before_an_unknown_batch_is_closed_by_a_fence() {
    let mut session = open(0);
    submit(&mut session, &["a", "b"]);
    send_all(&mut session, SECOND);
    session.stream_lost();
    send_all(&mut session, SECOND);
    session.answered(10, 1, not_applied(Reason::Invalid), SECOND);
    session.answered(10, 2, gap(1), SECOND);
    assert!(session.wants_opening());
    assert_eq!(send_all(&mut session, SECOND), []);
    session.opened(20, 0, false);
    let out = session.next_send(SECOND).expect("open");
    assert_eq!((out.epoch, out.sequence, *out.payload), (20, 1, "b"));
}

#[test]
fn after_a_fence_what_was_applied_is_asked_for_again_and_the_rest_moves() {
    let mut session = open(0);
    submit(&mut session, &["a", "b", "c"]);
    send_all(&mut session, SECOND);
    session.stream_lost();
    send_all(&mut session, SECOND);
    // Of a way to fail that this release does not know.
    let mut strange = refusal(Reason::Other("NEW".into()), Disposition::NotApplied, None);
    strange.code = Code::PermissionDenied;
    session.answered(10, 1, Ok(1), SECOND);
    session.answered(10, 2, Err(strange), SECOND);
    session.answered(10, 3, gap(2), SECOND);
    assert!(session.wants_opening());
    session.opened(20, 1, false);
    assert_eq!(send_all(&mut session, SECOND), [(2, "c")]);
    assert_eq!(
        outcomes(&mut session),
        [("a", Ok(1)), ("b", Err(Disposition::Unknown))]
    );
}

/// I4
#[test]
fn a_fenced_session_is_dead() {
    let mut session = open(0);
    submit(&mut session, &["a", "b", "c", "d", "e"]);
    send_all(&mut session, SECOND);
    session.answered(10, 1, Ok(1), SECOND);
    session.answered(10, 2, not_applied(Reason::Fenced), SECOND);
    assert_eq!(session.dead(), Some(&Cause::Fenced));
    session.answered(10, 3, not_applied(Reason::Fenced), SECOND);
    session.stream_lost();
    assert_eq!(
        outcomes(&mut session),
        [
            ("a", Ok(1)),
            ("b", Err(Disposition::NotApplied)),
            ("e", Err(Disposition::NotApplied)),
            ("c", Err(Disposition::NotApplied)),
            ("d", Err(Disposition::Unknown)),
        ]
    );
    let refused = session.submit("f", Numbering::Next, SECOND);
    assert!(matches!(
        refused,
        Err((
            "f",
            AppendError::NotApplied {
                cause: Cause::Fenced
            }
        ))
    ));
}

/// I4: it is opened again under the epoch it has, and does not take the session
/// back from whoever has opened it since.
#[test]
fn a_session_that_was_fenced_when_it_is_opened_again_is_dead() {
    let mut session = open(0);
    submit(&mut session, &["a", "b"]);
    send_all(&mut session, SECOND);
    let mut strange = not_applied(Reason::Invalid).expect_err("a refusal");
    strange.disposition = Disposition::Unknown;
    strange.code = Code::PermissionDenied;
    session.answered(10, 1, Err(strange), SECOND);
    session.answered(10, 2, gap(1), SECOND);
    assert!(session.wants_opening());
    let fenced = not_applied(Reason::Fenced).expect_err("a refusal");
    session.open_refused(fenced.into());
    assert_eq!(session.dead(), Some(&Cause::Fenced));
    assert_eq!(
        outcomes(&mut session),
        [
            ("a", Err(Disposition::Unknown)),
            ("b", Err(Disposition::NotApplied)),
        ]
    );
}

/// I3, I10: what is unknown when the session was forgotten stays unknown.
#[test]
fn a_forgotten_session_gives_unknown_batches_back_and_renumbers_the_others() {
    let mut session = open(5);
    submit(&mut session, &["a", "b", "c"]);
    let out = session.next_send(SECOND).expect("open");
    assert_eq!(out.sequence, 6);
    session.stream_lost();
    send_all(&mut session, SECOND);
    for sequence in 6..=8 {
        session.answered(10, sequence, not_applied(Reason::SessionUnknown), SECOND);
    }
    assert!(session.wants_opening());
    session.opened(99, 0, true);
    assert_eq!(outcomes(&mut session), [("a", Err(Disposition::Unknown))]);
    assert_eq!(send_all(&mut session, SECOND), [(1, "b"), (2, "c")]);
}

/// I12
#[test]
fn a_cluster_that_lost_acknowledged_batches_is_reported() {
    let mut session = open(0);
    submit(&mut session, &["a", "b"]);
    send_all(&mut session, SECOND);
    session.answered(10, 1, Ok(1), SECOND);
    session.answered(10, 2, gap(1), SECOND);
    assert_eq!(
        session.dead(),
        Some(&Cause::SequenceRegressed {
            acknowledged: 1,
            reported: 0
        })
    );
}

#[test]
fn a_recorded_refusal_is_an_outcome_and_uses_up_its_number() {
    let mut session = open(0);
    submit(&mut session, &["a", "b"]);
    send_all(&mut session, SECOND);
    session.stream_lost();
    send_all(&mut session, SECOND);
    session.answered(10, 1, not_applied(Reason::RevisionMismatch), SECOND);
    session.answered(10, 2, Ok(2), SECOND);
    assert_eq!(
        outcomes(&mut session),
        [("a", Err(Disposition::NotApplied)), ("b", Ok(2))]
    );
    assert_eq!(session.next_sequence(), 3);
}

#[test]
fn fixed_numbers_resume_after_a_crash() {
    let mut session = open(5);
    // Sequences 4 and 5 were applied before the crash; the caller asks for
    // their outcomes and goes on.
    for (sequence, name) in [(4, "d"), (5, "e"), (6, "f")] {
        assert_eq!(
            session.submit(name, Numbering::At(sequence), SECOND),
            Ok(sequence)
        );
    }
    assert_eq!(
        send_all(&mut session, Moment::ZERO),
        [(4, "d"), (5, "e"), (6, "f")]
    );
    let early = session.submit("z", Numbering::At(9), SECOND);
    assert!(matches!(
        early,
        Err((
            _,
            AppendError::NotApplied {
                cause: Cause::SequenceNotNext {
                    expected: 7,
                    actual: 9
                }
            }
        ))
    ));
}

#[test]
fn a_fixed_number_is_never_moved() {
    let mut session = open(0);
    for (sequence, name) in [(1, "a"), (2, "b")] {
        assert_eq!(
            session.submit(name, Numbering::At(sequence), 60 * SECOND),
            Ok(sequence)
        );
    }
    send_all(&mut session, SECOND);
    session.answered(10, 1, not_applied(Reason::Invalid), SECOND);
    session.answered(10, 2, gap(1), SECOND);
    assert_eq!(
        outcomes(&mut session),
        [
            ("a", Err(Disposition::NotApplied)),
            ("b", Err(Disposition::NotApplied))
        ]
    );
    assert_eq!(session.next_sequence(), 1);
}

#[test]
fn an_answer_out_of_order_breaks_the_stream() {
    let mut session = open(0);
    submit(&mut session, &["a", "b"]);
    send_all(&mut session, SECOND);
    assert_eq!(session.answered(10, 2, Ok(2), SECOND), Advice::BreakStream);
    assert_eq!(session.answered(9, 2, Ok(2), SECOND), Advice::Continue);
}
