//! Hunt definitions, in and out.

use std::fmt;

use bytes::Bytes;
use huntlog_machine::{Clue, Hint, HuntDefinition, Treasure, answer_hash, derived_salt, normalise};
use huntlog_proto::v1;

use super::faults::Faults;
use super::time::{timestamp_from_proto, timestamp_to_proto};

const ANSWER_HASH_BYTES: usize = 32;

/// A definition with its answers hashed. Faults are named below `path`.
pub(super) fn definition_from_proto(
    hunt: &str,
    definition: v1::HuntDefinition,
    path: fmt::Arguments<'_>,
    faults: &mut Faults,
) -> HuntDefinition {
    let mut time = |time: Option<prost_types::Timestamp>, field: &str| {
        timestamp_from_proto(time?, format_args!("{path}.{field}"), faults)
    };
    let starts_at = time(definition.starts_at, "starts_at");
    let ends_at = time(definition.ends_at, "ends_at");
    let clues = definition
        .clues
        .into_iter()
        .enumerate()
        .map(|(position, clue)| {
            clue_from_proto(hunt, clue, format_args!("{path}.clues[{position}]"), faults)
        })
        .collect();
    let definition = HuntDefinition {
        title: definition.title,
        clues,
        treasures: definition
            .treasures
            .into_iter()
            .map(|treasure| Treasure {
                id: treasure.id,
                title: treasure.title,
                limit: treasure.limit,
                points: treasure.points,
                requires: treasure.requires,
            })
            .collect(),
        starts_at,
        ends_at,
        max_players: definition.max_players,
    };
    for fault in definition.faults() {
        faults.add(format_args!("{path}.{}", fault.path), fault.message);
    }
    definition
}

fn clue_from_proto(
    hunt: &str,
    clue: v1::Clue,
    path: fmt::Arguments<'_>,
    faults: &mut Faults,
) -> Clue {
    let answer_salt = if !clue.answer_salt.is_empty() {
        clue.answer_salt
    } else if clue.answers.is_empty() {
        Bytes::new()
    } else {
        if !clue.answer_hashes.is_empty() {
            faults.add(
                format_args!("{path}.answer_salt"),
                "beside `answer_hashes`, `answers` need the salt that the hashes were made with",
            );
        }
        Bytes::copy_from_slice(&derived_salt(hunt, &clue.id))
    };
    let mut answer_hashes = Vec::with_capacity(clue.answers.len() + clue.answer_hashes.len());
    for (position, answer) in clue.answers.iter().enumerate() {
        if normalise(answer).is_empty() {
            faults.add(
                format_args!("{path}.answers[{position}]"),
                "an answer needs at least one letter or digit",
            );
        }
        answer_hashes.push(answer_hash(&answer_salt, answer));
    }
    for (position, hash) in clue.answer_hashes.iter().enumerate() {
        let mut bytes = [0; ANSWER_HASH_BYTES];
        if hash.len() == ANSWER_HASH_BYTES {
            bytes.copy_from_slice(hash);
        } else {
            faults.add(
                format_args!("{path}.answer_hashes[{position}]"),
                format!(
                    "{} bytes are given, a SHA-256 has {ANSWER_HASH_BYTES}",
                    hash.len()
                ),
            );
        }
        answer_hashes.push(bytes);
    }
    Clue {
        id: clue.id,
        title: clue.title,
        requires: clue.requires,
        points: clue.points,
        answer_salt,
        answer_hashes,
        max_attempts: clue.max_attempts,
        hints: clue
            .hints
            .into_iter()
            .map(|hint| Hint {
                id: hint.id,
                cost: hint.cost,
            })
            .collect(),
    }
}

/// A definition as it is answered: answers as hashes only.
pub fn definition_to_proto(definition: &HuntDefinition) -> v1::HuntDefinition {
    v1::HuntDefinition {
        title: definition.title.clone(),
        clues: definition.clues.iter().map(clue_to_proto).collect(),
        treasures: definition
            .treasures
            .iter()
            .map(|treasure| v1::Treasure {
                id: treasure.id.clone(),
                title: treasure.title.clone(),
                limit: treasure.limit,
                points: treasure.points,
                requires: treasure.requires.clone(),
            })
            .collect(),
        starts_at: definition.starts_at.map(timestamp_to_proto),
        ends_at: definition.ends_at.map(timestamp_to_proto),
        max_players: definition.max_players,
    }
}

fn clue_to_proto(clue: &Clue) -> v1::Clue {
    v1::Clue {
        id: clue.id.clone(),
        title: clue.title.clone(),
        requires: clue.requires.clone(),
        points: clue.points,
        answers: Vec::new(),
        answer_hashes: clue
            .answer_hashes
            .iter()
            .map(|hash| Bytes::copy_from_slice(hash))
            .collect(),
        answer_salt: clue.answer_salt.clone(),
        max_attempts: clue.max_attempts,
        hints: clue
            .hints
            .iter()
            .map(|hint| v1::Hint {
                id: hint.id.clone(),
                cost: hint.cost,
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn convert(definition: v1::HuntDefinition) -> Result<HuntDefinition, Vec<String>> {
        let mut faults = Faults::default();
        let converted = definition_from_proto("hunt-1", definition, format_args!("d"), &mut faults);
        faults
            .finish(converted)
            .map_err(|error| error.0.into_iter().map(|fault| fault.path).collect())
    }

    fn clue(id: &str, answers: &[&str]) -> v1::Clue {
        v1::Clue {
            id: id.to_owned(),
            answers: answers.iter().map(ToString::to_string).collect(),
            ..v1::Clue::default()
        }
    }

    fn definition(clues: Vec<v1::Clue>) -> v1::HuntDefinition {
        v1::HuntDefinition {
            title: "Spring".to_owned(),
            clues,
            ..v1::HuntDefinition::default()
        }
    }

    #[test]
    fn answers_become_hashes_under_a_salt_that_a_retry_repeats() {
        let first = convert(definition(vec![clue("c", &["Open sesame!"])])).expect("valid");
        let again = convert(definition(vec![clue("c", &["open SESAME"])])).expect("valid");
        assert_eq!(first, again);
        assert_eq!(first.clues[0].answer_salt[..], derived_salt("hunt-1", "c"));
        assert_eq!(
            first.clues[0].answer_hashes,
            [answer_hash(&derived_salt("hunt-1", "c"), "OPENSESAME")]
        );
    }

    #[test]
    fn a_given_salt_is_kept_and_serves_answers_and_hashes() {
        let mut mixed = clue("c", &["two"]);
        mixed.answer_salt = Bytes::from_static(b"salt");
        mixed.answer_hashes = vec![Bytes::copy_from_slice(&answer_hash(b"salt", "one"))];
        let converted = convert(definition(vec![mixed.clone()])).expect("valid");
        assert_eq!(
            converted.clues[0].answer_hashes,
            [answer_hash(b"salt", "two"), answer_hash(b"salt", "one")]
        );

        mixed.answer_salt = Bytes::new();
        assert_eq!(
            convert(definition(vec![mixed])),
            Err(vec!["d.clues[0].answer_salt".to_owned()])
        );
    }

    #[test]
    fn every_fault_is_named_where_it_is() {
        let mut short_hash = clue("b", &[]);
        short_hash.answer_hashes = vec![Bytes::from_static(&[1; 31])];
        let mut unknown = clue("c", &["x"]);
        unknown.requires = vec!["nowhere".to_owned()];
        let mut faulty = definition(vec![clue("a", &["fine", "?!"]), short_hash, unknown]);
        faulty.ends_at = Some(prost_types::Timestamp {
            seconds: 0,
            nanos: -1,
        });
        faulty.treasures = vec![v1::Treasure {
            id: "t".to_owned(),
            ..v1::Treasure::default()
        }];
        assert_eq!(
            convert(faulty),
            Err([
                "d.ends_at.nanos",
                "d.clues[0].answers[1]",
                "d.clues[1].answer_hashes[0]",
                "d.clues[2].requires[0]",
                "d.treasures[0].limit",
            ]
            .map(str::to_owned)
            .to_vec())
        );
    }

    #[test]
    fn what_is_answered_can_be_submitted_again() {
        let mut full = clue("a", &["one", "two"]);
        full.title = "First".to_owned();
        full.points = 3;
        full.max_attempts = 9;
        full.hints = vec![v1::Hint {
            id: "h".to_owned(),
            cost: 1,
        }];
        let mut second = clue("b", &["three"]);
        second.requires = vec!["a".to_owned()];
        let mut whole = definition(vec![full, second]);
        whole.treasures = vec![v1::Treasure {
            id: "t".to_owned(),
            title: "Chest".to_owned(),
            limit: 2,
            points: 10,
            requires: vec!["b".to_owned()],
        }];
        whole.starts_at = Some(prost_types::Timestamp {
            seconds: 1,
            nanos: 2,
        });
        whole.ends_at = Some(prost_types::Timestamp {
            seconds: 3,
            nanos: 4,
        });
        whole.max_players = 5;
        let converted = convert(whole).expect("valid");
        let answered = definition_to_proto(&converted);
        assert!(answered.clues.iter().all(|clue| clue.answers.is_empty()));
        assert_eq!(convert(answered).expect("valid"), converted);
    }
}
