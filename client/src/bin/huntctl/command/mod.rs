//! The commands that ask one thing and print the answer.

pub mod cluster;
pub mod event;
pub mod hunt;
pub mod leader;
pub mod member;
pub mod node;
pub mod player;
pub mod session;
pub mod snapshot;
pub mod upgrade;

use huntlog_client::proto::event_outcome::Outcome;
use huntlog_client::{Appended, Client, Producer, proto};
use rand::RngExt;
use serde_json::{Value, json};

use crate::document;
use crate::failure::Failure;
use crate::output::{self, Format};

/// Appends a batch under a session of its own and prints what became of it.
async fn append_one(
    client: &Client,
    format: Format,
    events: Vec<proto::Event>,
    expected: Vec<proto::ExpectedRevision>,
) -> Result<(), Failure> {
    let producer = open(client, &throwaway_session()).await?;
    let ticket = producer.append_batch_expecting(events, expected).await?;
    let appended = ticket.await?;
    print_outcomes(format, &appended)
}

/// Opens the session to append under: until then nothing is sent.
async fn open(client: &Client, session: &str) -> Result<Producer, Failure> {
    let opened = client.session(session).await;
    let context = "not applied (NOT_APPLIED): the session was not opened";
    opened.map_err(|error| Failure::from(error).during(context))
}

/// A session name nobody else has.
fn throwaway_session() -> String {
    format!("huntctl-{:016x}", rand::rng().random::<u64>())
}

/// Prints the outcome of each event; an error when one was rejected.
fn print_outcomes(format: Format, appended: &Appended) -> Result<(), Failure> {
    let outcomes = appended.outcomes.as_deref().unwrap_or_default();
    match format {
        Format::Json => output::json(&json!({
            "log_index": appended.log_index,
            "sequence": appended.sequence,
            "duplicate": appended.duplicate,
            "outcomes": outcomes.iter().map(|o| document::outcome(Some(o))).collect::<Vec<_>>(),
        }))?,
        Format::Table => {
            for outcome in outcomes {
                output::line(&describe(outcome))?;
            }
        }
    }
    let rejected = outcomes
        .iter()
        .filter(|outcome| matches!(outcome.outcome, Some(Outcome::Rejected(_))))
        .count();
    if rejected > 0 {
        return Err(Failure::Refused(format!(
            "{rejected} of {} events rejected by the rules of the hunt",
            outcomes.len()
        )));
    }
    Ok(())
}

fn describe(outcome: &proto::EventOutcome) -> String {
    match &outcome.outcome {
        Some(Outcome::Accepted(accepted)) => {
            let effects: Vec<String> = accepted.effects.iter().map(describe_effect).collect();
            let tail = if effects.is_empty() {
                String::new()
            } else {
                format!(": {}", effects.join(", "))
            };
            format!(
                "accepted at offset {}, revision {}{tail}",
                accepted.offset, accepted.revision
            )
        }
        Some(Outcome::Rejected(rejected)) => {
            format!("rejected: {}", document::reject_reason(rejected.reason()))
        }
        None => "no outcome".to_owned(),
    }
}

/// An effect in a few words, such as `clue_solved clue=c rank=1 points=5`.
fn describe_effect(effect: &proto::Effect) -> String {
    let Value::Object(object) = document::effect(effect) else {
        return String::new();
    };
    object
        .into_iter()
        .map(|(name, fields)| {
            let fields = fields.as_object().into_iter().flatten();
            fields.fold(name, |words, (key, value)| {
                let value = value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned);
                format!("{words} {key}={}", output::printable(&value))
            })
        })
        .collect()
}
