//! What a reader asks for.

use huntlog_machine::EventType;
use huntlog_machine::history::Filter;
use huntlog_proto::v1;

use super::faults::{Faults, InvalidRequest};
use crate::limits;

/// What a read may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadLevel {
    /// Everything acknowledged before the call.
    Linearizable,
    /// What this node has, once it has applied everything below the offset.
    Stale {
        /// That offset.
        min_offset: u64,
    },
}

/// What a read may see; linearizable unless something else is asked for.
pub fn consistency_from_proto(consistency: Option<v1::Consistency>) -> ReadLevel {
    use v1::consistency::Level;
    match consistency.and_then(|consistency| consistency.level) {
        None | Some(Level::Linearizable(())) => ReadLevel::Linearizable,
        Some(Level::Stale(v1::Stale { min_offset })) => ReadLevel::Stale { min_offset },
    }
}

/// Which events to deliver; no filter lets everything pass.
///
/// # Errors
/// With every fault, each at its field.
pub fn filter_from_proto(filter: Option<v1::Filter>) -> Result<Filter, InvalidRequest> {
    let Some(filter) = filter else {
        return Ok(Filter::default());
    };
    let mut faults = Faults::default();
    let count = filter.hunts.len() + filter.players.len() + filter.types.len();
    if count > limits::FILTER_VALUES_MAX {
        faults.add(
            "filter",
            format!(
                "{count} hunts, players and types are too many, at most {} are possible",
                limits::FILTER_VALUES_MAX
            ),
        );
        return faults.finish(Filter::default());
    }
    for (position, hunt) in filter.hunts.iter().enumerate() {
        faults.id(hunt, format_args!("filter.hunts[{position}]"));
    }
    for (position, player) in filter.players.iter().enumerate() {
        faults.id(player, format_args!("filter.players[{position}]"));
    }
    let mut types = Vec::with_capacity(filter.types.len());
    for (position, number) in filter.types.into_iter().enumerate() {
        match u8::try_from(number).ok().and_then(EventType::from_number) {
            Some(event_type) => types.push(event_type),
            None => faults.add(
                format_args!("filter.types[{position}]"),
                format!("this node knows no type of events with number {number}"),
            ),
        }
    }
    faults.finish(Filter {
        hunts: filter.hunts,
        players: filter.players,
        types,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_are_linearizable_unless_asked_otherwise() {
        use v1::consistency::Level;
        let read = |level| consistency_from_proto(Some(v1::Consistency { level }));
        assert_eq!(consistency_from_proto(None), ReadLevel::Linearizable);
        assert_eq!(read(None), ReadLevel::Linearizable);
        assert_eq!(read(Some(Level::Linearizable(()))), ReadLevel::Linearizable);
        assert_eq!(
            read(Some(Level::Stale(v1::Stale { min_offset: 9 }))),
            ReadLevel::Stale { min_offset: 9 }
        );
    }

    #[test]
    fn filters_name_hunts_players_and_types() {
        assert_eq!(filter_from_proto(None), Ok(Filter::default()));
        let filter = filter_from_proto(Some(v1::Filter {
            hunts: vec!["h".to_owned()],
            players: vec!["p".to_owned()],
            types: vec![
                v1::EventType::ClueAttempted.into(),
                v1::EventType::Custom.into(),
            ],
        }))
        .expect("valid");
        assert_eq!(filter.hunts, ["h"]);
        assert_eq!(filter.players, ["p"]);
        assert_eq!(filter.types, [EventType::ClueAttempted, EventType::Custom]);
    }

    #[test]
    fn every_fault_is_named() {
        let error = filter_from_proto(Some(v1::Filter {
            hunts: vec!["h".to_owned(), String::new()],
            players: vec!["p\n".to_owned()],
            types: vec![0, 1, 16, -1, 257],
        }))
        .expect_err("most of it is wrong");
        let paths: Vec<_> = error.0.iter().map(|fault| fault.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "filter.hunts[1]",
                "filter.players[0]",
                "filter.types[0]",
                "filter.types[2]",
                "filter.types[3]",
                "filter.types[4]",
            ]
        );
    }

    #[test]
    fn a_filter_is_bounded() {
        let filter = |hunts| {
            filter_from_proto(Some(v1::Filter {
                hunts: vec!["h".to_owned(); hunts],
                ..v1::Filter::default()
            }))
        };
        assert!(filter(limits::FILTER_VALUES_MAX).is_ok());
        let error = filter(limits::FILTER_VALUES_MAX + 1).expect_err("one too many");
        assert_eq!(error.0[0].path, "filter");
    }
}
