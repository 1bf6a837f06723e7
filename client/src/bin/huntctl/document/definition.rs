//! A hunt's definition as TOML or JSON.

use huntlog_client::proto;
use serde::{Deserialize, Serialize};

use super::{DocumentError, bytes, time};
use crate::time::format_time_if;

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// A hunt's definition.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    #[serde(default)]
    title: String,
    clues: Vec<Clue>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    treasures: Vec<Treasure>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    starts_at: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ends_at: Option<String>,
    #[serde(default, skip_serializing_if = "is_zero")]
    max_players: u32,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Clue {
    id: String,
    #[serde(default)]
    title: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    requires: Vec<String>,
    #[serde(default)]
    points: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    answers: Vec<String>,
    /// Hexadecimal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    answer_hashes: Vec<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    answer_salt: String,
    #[serde(default, skip_serializing_if = "is_zero")]
    max_attempts: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    hints: Vec<Hint>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hint {
    id: String,
    #[serde(default)]
    cost: u32,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Treasure {
    id: String,
    #[serde(default)]
    title: String,
    limit: u32,
    #[serde(default)]
    points: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    requires: Vec<String>,
}

impl TryFrom<Definition> for proto::HuntDefinition {
    type Error = DocumentError;

    fn try_from(document: Definition) -> Result<Self, DocumentError> {
        let clues = document.clues.into_iter().map(|clue| {
            let hashes = clue.answer_hashes.iter();
            Ok(proto::Clue {
                id: clue.id,
                title: clue.title,
                requires: clue.requires,
                points: clue.points,
                answers: clue.answers,
                answer_hashes: hashes
                    .map(|hash| bytes("answer_hashes", hash).map(Into::into))
                    .collect::<Result<_, _>>()?,
                answer_salt: bytes("answer_salt", &clue.answer_salt)?.into(),
                max_attempts: clue.max_attempts,
                hints: clue
                    .hints
                    .into_iter()
                    .map(|hint| proto::Hint {
                        id: hint.id,
                        cost: hint.cost,
                    })
                    .collect(),
            })
        });
        let treasures = document.treasures.into_iter();
        Ok(Self {
            title: document.title,
            clues: clues.collect::<Result<_, DocumentError>>()?,
            treasures: treasures
                .map(|treasure| proto::Treasure {
                    id: treasure.id,
                    title: treasure.title,
                    limit: treasure.limit,
                    points: treasure.points,
                    requires: treasure.requires,
                })
                .collect(),
            starts_at: time("starts_at", document.starts_at)?,
            ends_at: time("ends_at", document.ends_at)?,
            max_players: document.max_players,
        })
    }
}

impl From<&proto::HuntDefinition> for Definition {
    fn from(definition: &proto::HuntDefinition) -> Self {
        let clue = |clue: &proto::Clue| Clue {
            id: clue.id.clone(),
            title: clue.title.clone(),
            requires: clue.requires.clone(),
            points: clue.points,
            answers: clue.answers.clone(),
            answer_hashes: clue.answer_hashes.iter().map(hex::encode).collect(),
            answer_salt: hex::encode(&clue.answer_salt),
            max_attempts: clue.max_attempts,
            hints: clue
                .hints
                .iter()
                .map(|hint| Hint {
                    id: hint.id.clone(),
                    cost: hint.cost,
                })
                .collect(),
        };
        let treasure = |treasure: &proto::Treasure| Treasure {
            id: treasure.id.clone(),
            title: treasure.title.clone(),
            limit: treasure.limit,
            points: treasure.points,
            requires: treasure.requires.clone(),
        };
        Self {
            title: definition.title.clone(),
            clues: definition.clues.iter().map(clue).collect(),
            treasures: definition.treasures.iter().map(treasure).collect(),
            starts_at: format_time_if(definition.starts_at.as_ref()),
            ends_at: format_time_if(definition.ends_at.as_ref()),
            max_players: definition.max_players,
        }
    }
}
