//! What sessions remember, and what they forget.

use crate::support::{Replica, attempt, batch, create, custom, event, register, small_definition};
use crate::text;
use huntlog_machine::{
    BatchOutcome, BatchResult, CommandResult, Event, EventKind, EventOutcome, Limits, Machine,
    Refusal, SessionRefusal, encode_batch, encode_open_session, encode_reopen_session,
};
use proptest::prelude::*;

fn replica_with_hunt(limits: Limits) -> (Replica, u64) {
    let mut replica = Replica::with_limits(limits);
    let epoch = replica.epoch("s", "nonce");
    let events = vec![
        create("h", small_definition()),
        event("h", "", EventKind::HuntOpened),
        register("h", "p"),
        event("h", "", EventKind::HuntStarted),
    ];
    replica.append(0, &batch("s", epoch, 1, events));
    (replica, epoch)
}

fn duplicate(result: BatchResult) -> Option<BatchOutcome> {
    match result {
        BatchResult::Duplicate(outcome) => Some(outcome),
        BatchResult::DuplicateDropped { .. } => None,
        result => panic!("not a duplicate: {result:?}"),
    }
}

/// A batch whose outcomes take more than a few bytes.
fn varied(hunt: &str) -> Vec<Event> {
    (0..200)
        .map(|number| match number % 3 {
            0 => custom(hunt, b"x"),
            1 => attempt(hunt, "p", "a", "wrong"),
            _ => attempt(hunt, "p", "c", "locked"),
        })
        .collect()
}

/// I3: whatever is retried of what a session may have under way is answered as
/// it was the first time.
#[test]
fn everything_under_way_can_be_retried() {
    let (mut replica, epoch) = replica_with_hunt(Limits::default());
    let batches: Vec<_> = (2..34)
        .map(|sequence| batch("s", epoch, sequence, varied("h")))
        .collect();
    let first: Vec<_> = batches
        .iter()
        .map(|batch| match replica.append(0, batch) {
            BatchResult::Applied(outcome) => (outcome.log_index, text::outcomes(&outcome)),
            result => panic!("{result:?}"),
        })
        .collect();
    let end = replica.machine.end_offset();
    for (batch, (log_index, outcomes)) in batches.iter().zip(&first) {
        let again = duplicate(replica.append(0, batch)).expect("kept");
        assert_eq!(again.log_index, *log_index);
        assert_eq!(&text::outcomes(&again), outcomes);
    }
    assert_eq!(replica.machine.end_offset(), end, "I3");
}

/// I11: the results of all sessions share one budget; the oldest go first. A
/// small last result stays in memory as long as its session; of a large one its
/// place in the log does, where the outcome is read from.
#[test]
fn results_keep_to_their_budget() {
    let limits = Limits {
        result_budget_bytes: 2_000,
        ..Limits::default()
    };
    let (mut replica, epoch) = replica_with_hunt(limits);
    let small = batch("s", epoch, 2, vec![custom("h", b"small")]);
    replica.append(0, &small);
    let other = replica.epoch("t", "nonce");
    let large = batch("t", other, 1, varied("h"));
    let BatchResult::Applied(first) = replica.append(0, &large) else {
        panic!("it is new");
    };
    assert!(duplicate(replica.append(0, &large)).is_some());

    let busy = replica.epoch("u", "nonce");
    for sequence in 1..40 {
        replica.append(0, &batch("u", busy, sequence, vec![custom("h", &[7])]));
    }
    // 2,000 bytes have room for 27 results of 72 bytes.
    let retry = |sequence| batch("u", busy, sequence, vec![custom("h", &[7])]);
    assert!(duplicate(replica.append(0, &retry(39))).is_some());
    assert!(duplicate(replica.append(0, &retry(13))).is_some());
    assert!(duplicate(replica.append(0, &retry(12))).is_none());

    assert!(duplicate(replica.append(0, &small)).is_some());
    let BatchResult::DuplicateDropped {
        log_index: Some(log_index),
    } = replica.append(0, &large)
    else {
        panic!("its place in the log is kept");
    };
    assert_eq!(log_index, first.log_index);
    let again = replica
        .recorded(log_index, &encode_batch(&large))
        .expect("it was applied there");
    assert_eq!(text::outcomes(&again), text::outcomes(&first));
    assert_eq!(again.time_ms, first.time_ms);
    assert!(
        replica
            .recorded(log_index + 1, &encode_batch(&large))
            .is_none()
    );
    // What is left of the large one still tells another payload.
    let other_payload = batch("t", other, 1, vec![custom("h", b"other")]);
    assert!(matches!(
        replica.append(0, &other_payload),
        BatchResult::Refused(Refusal::PayloadMismatch { sequence: 1 })
    ));
    check_snapshot(&replica);
}

/// I4: who goes on from an epoch that was fenced does not get the session back,
/// and a repetition of an opening that was taken is answered as the first time.
#[test]
fn a_fenced_owner_does_not_reopen_the_session() {
    let mut replica = Replica::new();
    let first = replica.epoch("s", "first");
    let reopen = |replica: &mut Replica, nonce: &str, epoch| {
        let command = encode_reopen_session("s", nonce.as_bytes(), epoch);
        replica.apply(0, &[command]).results.remove(0)
    };
    let CommandResult::SessionOpened { epoch: second, .. } = reopen(&mut replica, "again", first)
    else {
        panic!("the first owner goes on");
    };
    assert!(second > first);
    let repeated = reopen(&mut replica, "again", first);
    assert!(matches!(repeated, CommandResult::SessionOpened { epoch, .. } if epoch == second));
    let third = replica.epoch("s", "another owner");
    assert!(third > second);
    let late = reopen(&mut replica, "and again", second);
    let CommandResult::SessionRefused(SessionRefusal::Fenced { epoch, current }) = late else {
        panic!("{late:?}");
    };
    assert_eq!((epoch, current), (second, third));
    // Nothing has changed: the owner appends.
    let next = batch("s", third, 1, vec![custom("h", b"x")]);
    assert!(matches!(replica.append(0, &next), BatchResult::Applied(_)));
    // Nobody here has given out an epoch that is higher: a backup was restored.
    let opened = reopen(&mut replica, "before the backup", third + 1_000);
    assert!(matches!(
        opened,
        CommandResult::SessionOpened {
            last_sequence: 1,
            ..
        }
    ));
    // A session that is not known is nobody's.
    let command = encode_reopen_session("other", b"nonce", third);
    let opened = replica.apply(0, &[command]).results.remove(0);
    assert!(matches!(
        opened,
        CommandResult::SessionOpened { fresh: true, .. }
    ));
    check_snapshot(&replica);
}

/// I3, I11: at the limit, those idle over the bound make room, oldest first,
/// and what they sent before is refused for ever.
#[test]
fn forgotten_sessions_are_refused_never_new() {
    let limits = Limits {
        max_sessions: 100,
        evictable_idle_ms: 5_000,
        ..Limits::default()
    };
    let mut replica = Replica::with_limits(limits);
    let mut epochs = Vec::new();
    let mut now_ms = 1_000_000;
    for session in 0..100 {
        let name = format!("session-{session}");
        epochs.push(replica.epoch(&name, "first"));
        let first = batch(&name, epochs[session], 1, vec![custom("h", b"x")]);
        assert!(matches!(
            replica.append(now_ms, &first),
            BatchResult::Applied(_)
        ));
    }
    assert!(matches!(
        replica.open(now_ms, "one-more", "first"),
        CommandResult::SessionRefused(SessionRefusal::TableFull { max_sessions: 100 })
    ));
    now_ms += 6_000;
    // Those in use are not the ones that go.
    for (session, epoch) in epochs.iter().enumerate().take(10) {
        let name = format!("session-{session}");
        let next = batch(&name, *epoch, 2, vec![custom("h", b"x")]);
        replica.append(now_ms, &next);
    }
    for more in 0..90 {
        let opened = replica.open(now_ms, &format!("more-{more}"), "first");
        assert!(matches!(
            opened,
            CommandResult::SessionOpened { fresh: true, .. }
        ));
        let gone = format!("session-{}", more + 10);
        assert!(replica.machine.session(&gone).is_none(), "oldest first");
        let retry = batch(&gone, epochs[more + 10], 1, vec![custom("h", b"x")]);
        let end = replica.machine.end_offset();
        assert!(matches!(
            replica.append(now_ms, &retry),
            BatchResult::Refused(Refusal::SessionUnknown)
        ));
        assert_eq!(replica.machine.end_offset(), end, "I3");
    }
    assert!(matches!(
        replica.open(now_ms, "one-more", "first"),
        CommandResult::SessionRefused(SessionRefusal::TableFull { .. })
    ));
    check_snapshot(&replica);
}

/// Forgetting is spread over entries, and the same on a restored replica.
#[test]
fn many_idle_sessions_are_forgotten_a_few_at_a_time() {
    let limits = Limits {
        session_idle_ms: 20_000,
        forgotten_per_entry_max: 10,
        ..Limits::default()
    };
    let mut replica = Replica::with_limits(limits);
    let opens: Vec<_> = (0..25)
        .map(|session| encode_open_session(&format!("session-{session:02}"), b"nonce"))
        .collect();
    replica.apply(0, &opens);
    for (stamp_ms, left) in [(10_000, 25), (20_000, 15), (20_000, 5), (20_000, 0)] {
        replica.apply(stamp_ms, &[]);
        assert_eq!(replica.machine.session_count(), left);
        check_snapshot(&replica);
    }
}

fn check_snapshot(replica: &Replica) {
    let mut snapshot = Vec::new();
    let hash = replica
        .machine
        .view()
        .write_to(&mut snapshot)
        .expect("a Vec takes all");
    let limits = replica.machine.limits().clone();
    let restored = Machine::restore(snapshot.as_slice(), limits.clone()).expect("sound");
    assert_eq!(restored.state_hash(), hash);
    let mut again = Machine::new(0, limits);
    replica.replay_into(&mut again);
    assert_eq!(again.state_hash(), hash, "I7");
}

/// What a client with 32 batches under way does to the log: any of them lost,
/// repeated or overtaken by later ones.
#[derive(Debug, Clone)]
enum Delivery {
    Send(u64),
    Reopen,
}

proptest! {
    /// I3, I5: whatever order batches arrive in, and however often, each is
    /// applied at most once and in sequence order; and once all are sent in
    /// order, each exactly once.
    #[test]
    fn any_delivery_applies_once_and_in_order(
        deliveries in prop::collection::vec(
            prop_oneof![20 => (1_u64..33).prop_map(Delivery::Send), 1 => Just(Delivery::Reopen)],
            0..200,
        ),
        budget in prop_oneof![Just(300_u64), Just(64 << 20)],
    ) {
        let limits = Limits { result_budget_bytes: budget, ..Limits::default() };
        let mut replica = Replica::with_limits(limits);
        let mut epoch = replica.epoch("s", "first nonce");
        let mut setup = vec![create("h", small_definition())];
        setup.push(custom("h", b"0"));
        replica.append(0, &batch("s", epoch, 1, setup));
        let make = |epoch, number: u64| batch("s", epoch, number + 1, vec![custom("h", &number.to_le_bytes())]);
        let mut applied = 0;
        let all = (1..33).map(Delivery::Send);
        for (step, delivery) in deliveries.into_iter().chain(all).enumerate() {
            let number = match delivery {
                Delivery::Send(number) => number,
                Delivery::Reopen => {
                    let old = epoch;
                    epoch = replica.epoch("s", &format!("nonce {step}"));
                    let fenced = replica.append(0, &make(old, applied + 1));
                    prop_assert!(matches!(fenced, BatchResult::Refused(Refusal::Fenced { .. })), "I4");
                    continue;
                }
            };
            match replica.append(0, &make(epoch, number)) {
                BatchResult::Applied(outcome) => {
                    prop_assert_eq!(number, applied + 1, "I5");
                    applied = number;
                    let expected = EventOutcome::Accepted {
                        offset: number + 1,
                        revision: number + 2,
                        effects: Default::default(),
                    };
                    prop_assert!(outcome.iter().eq([expected]));
                }
                BatchResult::Duplicate(outcome) => {
                    prop_assert!(number <= applied, "I3");
                    let Some(EventOutcome::Accepted { offset, .. }) = outcome.iter().next() else {
                        panic!("it was accepted");
                    };
                    prop_assert_eq!(offset, number + 1);
                }
                BatchResult::DuplicateDropped { log_index } => {
                    prop_assert!(budget == 300 && number < applied, "the last is always kept");
                    prop_assert_eq!(log_index, None);
                }
                BatchResult::Refused(Refusal::SequenceGap { expected, actual }) => {
                    prop_assert_eq!((expected, actual), (applied + 2, number + 1));
                }
                BatchResult::Refused(refusal) => panic!("{refusal}"),
            }
        }
        prop_assert_eq!(applied, 32);
        prop_assert_eq!(replica.machine.end_offset(), 34, "I3, I5");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// I3, I7: who is forgotten, and when, follows from the log alone, also for
    /// a replica that began with a snapshot; and whoever is forgotten is unknown
    /// until it is opened again.
    #[test]
    fn a_restored_table_forgets_the_same(
        steps in prop::collection::vec((0..8_usize, 0..4_u8, 0..12_000_u64), 1..40),
    ) {
        let limits = Limits {
            max_sessions: 5,
            evictable_idle_ms: 8_000,
            session_idle_ms: 25_000,
            result_budget_bytes: 600,
            ..Limits::default()
        };
        let mut replica = Replica::with_limits(limits.clone());
        let mut now_ms = 0;
        let mut snapshots = Vec::new();
        for (name, what, step_ms) in steps {
            let name = format!("session-{name}");
            now_ms += step_ms;
            let known = replica.machine.session(&name).map(|s| (s.epoch, s.last_sequence));
            if what == 0 || (known.is_none() && what == 1) {
                replica.open(now_ms, &name, &format!("nonce {now_ms}"));
            } else {
                let (epoch, last) = known.unwrap_or((0, 0));
                let sequence = if what == 3 { last.max(1) } else { last + 1 };
                let events = vec![custom("h", &sequence.to_le_bytes())];
                let result = replica.append(now_ms, &batch(&name, epoch, sequence, events));
                if known.is_none() {
                    let unknown = matches!(result, BatchResult::Refused(Refusal::SessionUnknown));
                    prop_assert!(unknown, "I3");
                }
            }
            prop_assert!(replica.machine.session_count() <= 5, "I11");
            let mut snapshot = Vec::new();
            replica.machine.view().write_to(&mut snapshot).expect("a Vec takes all");
            snapshots.push(snapshot);
        }
        for snapshot in snapshots {
            let mut restored = Machine::restore(snapshot.as_slice(), limits.clone()).expect("sound");
            replica.replay_into(&mut restored);
            prop_assert_eq!(restored.state_hash(), replica.machine.state_hash(), "I7");
        }
    }
}

/// I9: the batches of an entry stand and fall alone.
#[test]
fn batches_of_one_entry_are_independent() {
    let (mut replica, epoch) = replica_with_hunt(Limits::default());
    let other = replica.epoch("t", "nonce");
    let mut failing = batch("t", other, 1, vec![custom("h", b"1"), custom("h", b"2")]);
    failing.expected = vec![("h".into(), huntlog_machine::ExpectedRevision::Exactly(99))];
    let applied = replica.apply(
        0,
        &[
            encode_batch(&batch("s", epoch, 3, vec![custom("h", b"gap")])),
            encode_batch(&failing),
            encode_batch(&batch("s", epoch, 2, vec![custom("h", b"good")])),
            encode_batch(&batch("nobody", 0, 1, vec![custom("h", b"unknown")])),
        ],
    );
    assert_eq!(applied.accepted, 1);
    let results: Vec<_> = applied
        .results
        .iter()
        .map(|result| text::result(result).remove(0))
        .collect();
    assert_eq!(
        results,
        [
            "refused SequenceGap { expected: 2, actual: 3 }",
            "refused RevisionMismatch { hunt: \"h\", expected: Exactly(99), actual: 4 }",
            "applied",
            "refused SessionUnknown",
        ]
    );
}
