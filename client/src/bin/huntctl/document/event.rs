//! An event as JSON.

use huntlog_client::proto;
use huntlog_client::proto::event::Kind;
use serde::{Deserialize, Serialize};

use super::definition::Definition;
use super::{DocumentError, bytes, time};
use crate::time::format_time_if;

/// An event; exactly one of the kinds is set.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Event {
    hunt: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    player: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    occurred_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hunt_created: Option<Created>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hunt_opened: Option<Empty>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hunt_started: Option<Empty>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hunt_paused: Option<Empty>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hunt_resumed: Option<Empty>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hunt_finished: Option<Empty>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hunt_cancelled: Option<Reasoned>,
    #[serde(skip_serializing_if = "Option::is_none")]
    player_registered: Option<Registered>,
    #[serde(skip_serializing_if = "Option::is_none")]
    player_withdrawn: Option<Empty>,
    #[serde(skip_serializing_if = "Option::is_none")]
    player_disqualified: Option<Reasoned>,
    #[serde(skip_serializing_if = "Option::is_none")]
    clue_attempted: Option<Attempted>,
    #[serde(skip_serializing_if = "Option::is_none")]
    treasure_claimed: Option<Claimed>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint_taken: Option<HintTaken>,
    #[serde(skip_serializing_if = "Option::is_none")]
    custom: Option<Custom>,
    #[serde(skip_serializing_if = "Option::is_none")]
    announced: Option<Announced>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Empty {}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Created {
    definition: Definition,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reasoned {
    #[serde(default)]
    reason: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Registered {
    #[serde(default)]
    display_name: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Attempted {
    clue: String,
    answer: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claimed {
    treasure: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HintTaken {
    clue: String,
    hint: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Custom {
    #[serde(default)]
    r#type: String,
    /// The payload, where it is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// The payload otherwise, hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Announced {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    clue: String,
    text: String,
}

impl TryFrom<Event> for proto::Event {
    type Error = DocumentError;

    fn try_from(document: Event) -> Result<Self, DocumentError> {
        let mut kinds = Vec::new();
        if let Some(created) = document.hunt_created {
            let definition = Some(created.definition.try_into()?);
            kinds.push(Kind::HuntCreated(proto::HuntCreated { definition }));
        }
        let simple = [
            (document.hunt_opened, Kind::HuntOpened(proto::HuntOpened {})),
            (
                document.hunt_started,
                Kind::HuntStarted(proto::HuntStarted {}),
            ),
            (document.hunt_paused, Kind::HuntPaused(proto::HuntPaused {})),
            (
                document.hunt_resumed,
                Kind::HuntResumed(proto::HuntResumed {}),
            ),
            (
                document.hunt_finished,
                Kind::HuntFinished(proto::HuntFinished {}),
            ),
            (
                document.player_withdrawn,
                Kind::PlayerWithdrawn(proto::PlayerWithdrawn {}),
            ),
        ];
        kinds.extend(
            simple
                .into_iter()
                .filter_map(|(set, kind)| set.map(|_| kind)),
        );
        kinds.extend(
            document
                .hunt_cancelled
                .map(|Reasoned { reason }| Kind::HuntCancelled(proto::HuntCancelled { reason })),
        );
        kinds.extend(document.player_disqualified.map(|Reasoned { reason }| {
            Kind::PlayerDisqualified(proto::PlayerDisqualified { reason })
        }));
        kinds.extend(
            document
                .player_registered
                .map(|Registered { display_name }| {
                    Kind::PlayerRegistered(proto::PlayerRegistered { display_name })
                }),
        );
        kinds.extend(document.clue_attempted.map(|Attempted { clue, answer }| {
            Kind::ClueAttempted(proto::ClueAttempted { clue, answer })
        }));
        kinds.extend(document.treasure_claimed.map(|Claimed { treasure }| {
            Kind::TreasureClaimed(proto::TreasureClaimed { treasure })
        }));
        kinds.extend(
            document
                .hint_taken
                .map(|HintTaken { clue, hint }| Kind::HintTaken(proto::HintTaken { clue, hint })),
        );
        if let Some(custom) = document.custom {
            let payload = match (custom.text, custom.hex) {
                (Some(_), Some(_)) => return Err(DocumentError::Payload),
                (Some(text), None) => text.into_bytes(),
                (None, Some(hex)) => bytes("custom.hex", &hex)?,
                (None, None) => Vec::new(),
            };
            kinds.push(Kind::Custom(proto::Custom {
                r#type: custom.r#type,
                payload: payload.into(),
            }));
        }
        kinds.extend(
            document
                .announced
                .map(|Announced { clue, text }| Kind::Announced(proto::Announced { clue, text })),
        );
        let count = kinds.len();
        let kind = kinds
            .pop()
            .filter(|_| count == 1)
            .ok_or(DocumentError::Kinds(count))?;
        Ok(Self {
            hunt: document.hunt,
            player: document.player,
            occurred_at: time("occurred_at", document.occurred_at)?,
            kind: Some(kind),
        })
    }
}

impl From<&proto::Event> for Event {
    fn from(event: &proto::Event) -> Self {
        let mut document = Self {
            hunt: event.hunt.clone(),
            player: event.player.clone(),
            occurred_at: format_time_if(event.occurred_at.as_ref()),
            ..Self::default()
        };
        match event.kind.clone() {
            Some(Kind::HuntCreated(created)) => {
                document.hunt_created = Some(Created {
                    definition: (&created.definition.unwrap_or_default()).into(),
                });
            }
            Some(Kind::HuntOpened(_)) => document.hunt_opened = Some(Empty {}),
            Some(Kind::HuntStarted(_)) => document.hunt_started = Some(Empty {}),
            Some(Kind::HuntPaused(_)) => document.hunt_paused = Some(Empty {}),
            Some(Kind::HuntResumed(_)) => document.hunt_resumed = Some(Empty {}),
            Some(Kind::HuntFinished(_)) => document.hunt_finished = Some(Empty {}),
            Some(Kind::HuntCancelled(proto::HuntCancelled { reason })) => {
                document.hunt_cancelled = Some(Reasoned { reason });
            }
            Some(Kind::PlayerRegistered(proto::PlayerRegistered { display_name })) => {
                document.player_registered = Some(Registered { display_name });
            }
            Some(Kind::PlayerWithdrawn(_)) => document.player_withdrawn = Some(Empty {}),
            Some(Kind::PlayerDisqualified(proto::PlayerDisqualified { reason })) => {
                document.player_disqualified = Some(Reasoned { reason });
            }
            Some(Kind::ClueAttempted(proto::ClueAttempted { clue, answer })) => {
                document.clue_attempted = Some(Attempted { clue, answer });
            }
            Some(Kind::TreasureClaimed(proto::TreasureClaimed { treasure })) => {
                document.treasure_claimed = Some(Claimed { treasure });
            }
            Some(Kind::HintTaken(proto::HintTaken { clue, hint })) => {
                document.hint_taken = Some(HintTaken { clue, hint });
            }
            Some(Kind::Custom(custom)) => {
                let text = String::from_utf8(custom.payload.to_vec()).ok();
                document.custom = Some(Custom {
                    r#type: custom.r#type,
                    hex: text.is_none().then(|| hex::encode(&custom.payload)),
                    text,
                });
            }
            Some(Kind::Announced(proto::Announced { clue, text })) => {
                document.announced = Some(Announced { clue, text });
            }
            None => {}
        }
        document
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_round_trip_through_json() {
        for text in [
            r#"{"hunt":"h","hunt_opened":{}}"#,
            r#"{"hunt":"h","player":"p","clue_attempted":{"clue":"c","answer":"A, \"B\""}}"#,
            r#"{"hunt":"h","announced":{"text":"The well is dry"}}"#,
            r#"{"hunt":"h","announced":{"clue":"c","text":"A, not B"}}"#,
            r#"{"hunt":"h","occurred_at":"2018-03-16T19:18:19Z","custom":{"type":"t","hex":"ff00"}}"#,
            r#"{"hunt":"h","hunt_created":{"definition":{"title":"T","clues":[{"id":"c","title":"","points":1,"answers":["x"],"hints":[{"id":"i","cost":2}]}],"treasures":[{"id":"t","title":"","limit":1,"points":0}],"ends_at":"2030-01-01T00:00:00Z"}}}"#,
        ] {
            let document: Event = serde_json::from_str(text).expect(text);
            let event = proto::Event::try_from(document).expect(text);
            let again = serde_json::to_string(&Event::from(&event)).expect("serializable");
            assert_eq!(again, text);
        }
    }

    #[test]
    fn faulty_events_are_refused_with_their_fault() {
        let fault = |text: &str| {
            let document = serde_json::from_str::<Event>(text).map_err(|e| e.to_string())?;
            proto::Event::try_from(document).map_err(|e| e.to_string())
        };
        for (text, words) in [
            (r#"{"hunt":"h"}"#, "this one has 0"),
            (
                r#"{"hunt":"h","hunt_opened":{},"hunt_started":{}}"#,
                "this one has 2",
            ),
            (
                r#"{"hunt":"h","clue_atempted":{}}"#,
                "unknown field `clue_atempted`",
            ),
            (r#"{"hunt":"h","custom":{"hex":"0"}}"#, "custom.hex"),
            (
                r#"{"hunt":"h","occurred_at":"noon","hunt_opened":{}}"#,
                "occurred_at: \"noon\"",
            ),
        ] {
            let error = fault(text).expect_err(text);
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
