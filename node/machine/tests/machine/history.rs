//! History: what readers are given from entries and records.

use crate::model;
use crate::support::{Logged, Replica, batch, create, custom, event, small_definition};
use crate::text;
use huntlog_machine::history::{self, CommittedEvent, Filter, RecordHeader};
use huntlog_machine::{EventKind, EventType, encode_batch, encode_open_session};
use proptest::prelude::*;
use proptest::sample::subsequence;

fn all(log: &[Logged]) -> Vec<CommittedEvent<'_>> {
    read(log, 0, &MATCH_ALL)
}

static MATCH_ALL: Filter = Filter {
    hunts: Vec::new(),
    players: Vec::new(),
    types: Vec::new(),
};

fn read<'a>(log: &'a [Logged], from: u64, filter: &'a Filter) -> Vec<CommittedEvent<'a>> {
    log.iter()
        .filter_map(|logged| Some((logged.entry.as_ref()?, &logged.record)))
        .flat_map(|(entry, record)| {
            history::events_from(entry, record, from, filter).expect("sound")
        })
        .map(|event| event.expect("sound"))
        .collect()
}

fn any_filter() -> impl Strategy<Value = Filter> {
    let names = |names: &[&str]| -> Vec<String> { names.iter().map(|&n| n.into()).collect() };
    let some = move |all: &[&str]| {
        let all = names(all);
        prop_oneof![Just(Vec::new()), subsequence(all.clone(), 0..=all.len())]
    };
    let types = prop_oneof![
        Just(Vec::new()),
        subsequence(EventType::ALL.to_vec(), 1..EventType::ALL.len()),
    ];
    (some(&["g", "h", "nowhere"]), some(&["p", "q"]), types).prop_map(|(hunts, players, types)| {
        Filter {
            hunts,
            players,
            types,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// I5, and skipping undecoded changes nothing.
    #[test]
    fn filters_and_offsets_only_leave_out(
        entries in model::any_entries(),
        filters in prop::collection::vec((any_filter(), 0.0..1.1), 8),
    ) {
        let replica = model::run(entries);
        let everything = all(&replica.log);
        for (offset, event) in everything.iter().enumerate() {
            prop_assert_eq!(event.offset, offset as u64, "I5");
        }
        prop_assert_eq!(everything.len() as u64, replica.machine.end_offset());
        for hunt in replica.machine.hunts(None, 10) {
            let of_hunt = everything.iter().filter(|event| event.event.hunt == hunt.id());
            let revisions: Vec<_> = of_hunt.map(|event| event.revision).collect();
            prop_assert!(revisions.iter().copied().eq(1..=hunt.revision()), "I5");
        }
        for (filter, part) in filters {
            let from = (everything.len() as f64 * part) as u64;
            let expected: Vec<_> = everything
                .iter()
                .filter(|event| event.offset >= from && filter.matches(&event.event))
                .collect();
            let read = read(&replica.log, from, &filter);
            prop_assert_eq!(
                read.iter().map(text::committed).collect::<Vec<_>>(),
                expected.into_iter().map(text::committed).collect::<Vec<_>>()
            );
        }
        // The index of a hunt finds all of its events.
        for hunt in ["g", "h"] {
            let filter = Filter { hunts: vec![hunt.into()], ..Filter::default() };
            let Some(entries) = replica.machine.hunt_entries(hunt) else { continue };
            let found: Vec<_> = entries
                .iter_from(0)
                .map(|index| &replica.log[usize::try_from(index).expect("small")])
                .flat_map(|logged| {
                    let entry = logged.entry.as_ref().expect("not a blank");
                    history::events_from(entry, &logged.record, 0, &filter).expect("sound")
                })
                .map(|event| text::committed(&event.expect("sound")))
                .collect();
            let expected: Vec<_> = read(&replica.log, 0, &filter).iter().map(text::committed).collect();
            prop_assert_eq!(found, expected);
        }
    }

    /// Records and entries may be damaged; a reader gets an error or events,
    /// and no panic.
    #[test]
    fn damaged_records_never_panic(
        entries in model::any_entries(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..40),
    ) {
        let replica = model::run(entries);
        let log: Vec<_> = replica.log.iter().filter(|logged| logged.entry.is_some()).collect();
        prop_assume!(!log.is_empty());
        for (position, byte, cut) in damage {
            let logged = position.get(&log);
            let entry = logged.entry.as_ref().expect("filtered").to_vec();
            for which in [true, false] {
                let (mut entry, mut record) = (entry.clone(), logged.record.to_vec());
                let target = if which { &mut entry } else { &mut record };
                let at = position.index(target.len());
                if cut {
                    target.truncate(at);
                } else {
                    target[at] ^= byte;
                }
                if let Ok(events) = history::events(&entry, &record) {
                    events.take(10_000).for_each(drop);
                }
                let _ = RecordHeader::decode(&record);
            }
        }
    }
}

fn entry_of(commands: usize, events: usize, hunts: usize) -> (Replica, usize) {
    let mut replica = Replica::new();
    let names: Vec<_> = (0..commands.max(1))
        .map(|session| format!("s{session}"))
        .collect();
    let opens: Vec<_> = names
        .iter()
        .map(|name| encode_open_session(name, b"nonce"))
        .collect();
    replica.apply(1_700_000_000_000, &opens);
    let epoch = replica.machine.session("s0").expect("opened").epoch;
    let hunt_names: Vec<_> = (0..hunts).map(|hunt| format!("hunt-{hunt}")).collect();
    let setup = hunt_names
        .iter()
        .map(|hunt| create(hunt, small_definition()))
        .collect();
    replica.append(1_700_000_000_000, &batch("s0", epoch, 1, setup));
    let batches: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(position, name)| {
            let events = (0..events)
                .map(|number| custom(&hunt_names[(position + number) % hunts], &[0; 256]))
                .collect();
            encode_batch(&batch(name, epoch, 1 + u64::from(position == 0), events))
        })
        .collect();
    let applied = replica.apply(1_700_000_000_500, &batches);
    assert_eq!(applied.accepted, (commands * events) as u64);
    let len = applied.record.len();
    (replica, len)
}

/// An entry of thousands of position reports leaves tens of bytes,
/// however it is cut into batches, and whatever hunts take turns in it.
#[test]
fn records_are_compact() {
    for (commands, events, hunts, most) in [
        (1, 4_096, 1, 48),
        (32, 128, 1, 48),
        (4_096, 1, 1, 48),
        (32, 128, 10, 64),
        (4_096, 1, 10, 64),
    ] {
        let (replica, len) = entry_of(commands, events, hunts);
        assert!(
            len <= most,
            "{commands} x {events}, {hunts} hunts: {len} bytes"
        );
        assert_eq!(all(&replica.log).len(), hunts + commands * events);
    }
}

#[test]
fn headers_are_readable_alone() {
    let (replica, _) = entry_of(2, 3, 1);
    let headers: Vec<_> = replica
        .log
        .iter()
        .map(|logged| RecordHeader::decode(&logged.record).expect("sound"))
        .collect();
    let numbers: Vec<_> = headers
        .iter()
        .map(|h| (h.first_offset, h.accepted))
        .collect();
    assert_eq!(numbers, [(0, 0), (0, 1), (1, 6)]);
    assert_eq!(headers[2].time_ms, 1_700_000_000_500);
}

/// An entry and another entry's record do not make a history.
#[test]
fn a_foreign_record_is_noticed() {
    let mut replica = Replica::new();
    let epoch = replica.epoch("s", "nonce");
    let opened = event("h", "", EventKind::HuntOpened);
    replica.append(
        0,
        &batch("s", epoch, 1, vec![create("h", small_definition()), opened]),
    );
    replica.append(0, &batch("s", epoch, 2, vec![custom("h", b"one")]));
    let entry = replica.log[2].entry.as_ref().expect("not a blank");
    let events = history::events(entry, &replica.log[0].record);
    assert!(events.is_err(), "another number of hunts");
    let mut events = history::events(entry, &replica.log[1].record).expect("the heads agree");
    assert!(
        events.any(|event| event.is_err()),
        "other outcomes than events"
    );
}
