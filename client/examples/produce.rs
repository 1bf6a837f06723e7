//! A game server's producer: creates a hunt, and submits what its players do.
//! Run against a local cluster: `cargo run -p huntlog-client --example produce`.
#![allow(clippy::print_stdout)]

use huntlog_client::proto::{Clue, HuntDefinition};
use huntlog_client::{AppendError, Client, ClientOptions, event};

const HUNT: &str = "harbour-walk";

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::connect(["127.0.0.1:7650"], ClientOptions::default())?;
    // The name is this server's own. Reopening it after a crash fences the
    // former process and tells how far it had come.
    let producer = client.session("game-server-1").await?;
    println!("batches applied so far: {}", producer.last_sequence());
    let lighthouse = Clue {
        id: "lighthouse".into(),
        answers: vec!["Fresnel".into()],
        points: 10,
        ..Default::default()
    };
    let definition = HuntDefinition {
        title: "A walk along the harbour".into(),
        clues: vec![lighthouse],
        ..Default::default()
    };
    // Logged together or not at all, and only if the hunt is not there yet.
    let created = producer
        .append_batch_expecting(
            vec![
                event::hunt_created(HUNT, definition),
                event::hunt_opened(HUNT),
                event::player_registered(HUNT, "ada", "Ada"),
                event::hunt_started(HUNT),
            ],
            vec![event::expect_no_event(HUNT)],
        )
        .await?
        .await;
    match created {
        Ok(_) => println!("created {HUNT}"),
        Err(AppendError::NotApplied { cause }) => println!("not created: {cause}"),
        Err(unknown) => return Err(unknown.into()),
    }

    // Submitting waits only for room; the tickets wait for the outcomes.
    let mut tickets = Vec::new();
    for answer in ["Eddystone", "fresnel"] {
        let attempt = event::clue_attempted(HUNT, "ada", "lighthouse", answer);
        tickets.push((answer, producer.append(attempt).await?));
    }
    for (answer, ticket) in tickets {
        let appended = ticket.await?;
        let offset = appended.offset();
        println!("{answer}: offset {offset:?}, {:?}", appended.outcome);
    }
    Ok(producer.close().await?)
}
