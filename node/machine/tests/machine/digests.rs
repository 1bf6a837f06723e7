//! I7: replicas that differ find out, at the index where they do.

use crate::support::{Replica, batch, create, custom, small_definition};
use huntlog_machine::{
    ApplyError, Digest, DigestCheck, EntryBuilder, Limits, LogId, Machine, encode_batch,
    encode_open_session, history,
};

fn entry_with_check(check: DigestCheck) -> bytes::Bytes {
    EntryBuilder::new(0, Some(check)).finish()
}

fn some_log() -> Replica {
    let mut replica = Replica::new();
    replica.blank();
    let epoch = replica.epoch("s", "nonce");
    replica.append(
        5,
        &batch("s", epoch, 1, vec![create("h", small_definition())]),
    );
    for sequence in 2..10 {
        replica.append(
            sequence,
            &batch("s", epoch, sequence, vec![custom("h", b"x")]),
        );
    }
    replica
}

#[test]
fn a_replica_that_differs_stops_and_says_where() {
    let mut replica = some_log();
    let theirs = Digest([7; 16]);
    let state = replica.machine.state_hash();
    for index in [0, 4, 10] {
        let ours = replica.machine.digest_at(index).expect("kept");
        let error = replica
            .apply_entry(entry_with_check(DigestCheck {
                index,
                digest: theirs,
            }))
            .expect_err("I7");
        let log_id = replica.next_log_id();
        assert_eq!(
            error,
            ApplyError::DigestMismatch {
                log_id,
                index,
                ours,
                theirs
            }
        );
        assert_eq!(replica.machine.state_hash(), state, "nothing was applied");
    }
}

#[test]
fn what_cannot_be_compared_is_counted() {
    let limits = Limits {
        digests_kept: 4,
        ..Limits::default()
    };
    let mut replica = Replica::with_limits(limits.clone());
    (0..10).for_each(|_| replica.blank());
    assert_eq!(replica.machine.digest_at(5), None);
    assert!(replica.machine.digest_at(6).is_some());
    let digest = Digest([7; 16]);
    let entry = entry_with_check(DigestCheck { index: 5, digest });
    replica.apply_entry(entry).expect("too old to compare");
    let ahead = entry_with_check(DigestCheck {
        index: 1_000,
        digest,
    });
    replica.apply_entry(ahead).expect("not there yet");
    assert_eq!(replica.machine.counters().digests_uncomparable, 2);

    // A restored replica compares just as far back.
    let mut snapshot = Vec::new();
    replica
        .machine
        .view()
        .write_to(&mut snapshot)
        .expect("a Vec takes all");
    let restored = Machine::restore(snapshot.as_slice(), limits).expect("sound");
    for index in 0..14 {
        assert_eq!(restored.digest_at(index), replica.machine.digest_at(index));
    }
}

/// Any difference in what was applied shows in the digest, and records carry it.
#[test]
fn digests_tell_logs_apart() {
    let first = |session: &str, payload: &[u8], log_id: LogId, stamp_ms: u64| {
        let mut machine = Machine::new(0, Limits::default());
        let mut open = EntryBuilder::new(stamp_ms, None);
        open.push(&encode_open_session(session, b"nonce"));
        machine
            .apply(LogId { index: 0, ..log_id }, &open.finish())
            .expect("sound");
        let mut entry = EntryBuilder::new(stamp_ms, None);
        entry.push(&encode_batch(&batch(
            session,
            0,
            1,
            vec![custom("h", payload)],
        )));
        let applied = machine.apply(log_id, &entry.finish()).expect("sound");
        let check = machine.digest().expect("applied");
        assert_eq!(history::digest_after(&applied.record), Ok(check.digest));
        check.digest
    };
    let log_id = LogId {
        term: 1,
        node_id: 1,
        index: 1,
    };
    let base = first("s", b"x", log_id, 5);
    assert_eq!(first("s", b"x", log_id, 5), base);
    assert_ne!(first("s", b"y", log_id, 5), base, "another payload");
    assert_ne!(first("s", b"x", log_id, 6), base, "another time");
    assert_ne!(
        first("s", b"x", LogId { term: 2, ..log_id }, 5),
        base,
        "another leader"
    );
    assert_ne!(
        first(
            "s",
            b"x",
            LogId {
                node_id: 2,
                ..log_id
            },
            5
        ),
        base
    );
}

#[test]
fn entries_come_in_order_and_once() {
    let mut replica = some_log();
    let entry = replica.entry(9, &[]);
    let state = replica.machine.state_hash();
    let next = replica.next_log_id();
    for index in [0, next.index - 1, next.index + 1, u64::MAX] {
        let log_id = LogId { index, ..next };
        let expected_index = next.index;
        let error = Err(ApplyError::NotNext {
            log_id,
            expected_index,
        });
        assert_eq!(replica.machine.apply(log_id, &entry).map(|_| ()), error);
        assert_eq!(replica.machine.apply_blank(log_id).map(|_| ()), error);
    }
    assert_eq!(replica.machine.state_hash(), state, "nothing was applied");
    assert!(replica.machine.apply(next, &entry).is_ok());
}
