//! Hunts: creating them, driving them, and how they stand.

use std::path::Path;

use huntlog_client::{Client, event, proto};
use serde_json::{Value, json};

use super::append_one;
use crate::args::HuntCommand;
use crate::document::{self, Definition};
use crate::failure::Failure;
use crate::output::{self, Format};
use crate::time::{format_time, format_time_if};

/// Rows asked for at once.
const PAGE: u32 = 10_000;

pub async fn run(client: &Client, format: Format, command: HuntCommand) -> Result<(), Failure> {
    let submitted = match command {
        HuntCommand::Create { hunt, file } => {
            let created = event::hunt_created(&hunt, read_definition(&file)?);
            let expected = vec![event::expect_no_event(&hunt)];
            return append_one(client, format, vec![created], expected).await;
        }
        HuntCommand::Get { hunt } => return get(client, format, hunt).await,
        HuntCommand::List => return list(client, format).await,
        HuntCommand::Scoreboard { hunt, limit } => {
            let (rows, last) = scoreboard(client, &hunt, limit).await?;
            return print_scoreboard(format, &hunt, &rows, &last);
        }
        HuntCommand::Open { hunt } => event::hunt_opened(&hunt),
        HuntCommand::Start { hunt } => event::hunt_started(&hunt),
        HuntCommand::Pause { hunt } => event::hunt_paused(&hunt),
        HuntCommand::Resume { hunt } => event::hunt_resumed(&hunt),
        HuntCommand::Finish { hunt } => event::hunt_finished(&hunt),
        HuntCommand::Cancel { hunt, reason } => event::hunt_cancelled(&hunt, &reason),
    };
    append_one(client, format, vec![submitted], Vec::new()).await
}

fn read_definition(path: &Path) -> Result<proto::HuntDefinition, Failure> {
    let name = path.display();
    let text = std::fs::read_to_string(path).map_err(Failure::input(name.to_string()))?;
    let fault = |words: &dyn std::fmt::Display| Failure::Usage(format!("{name}: {words}"));
    let document: Definition = match path.extension().and_then(|e| e.to_str()) {
        Some("json") => serde_json::from_str(&text).map_err(|e| fault(&e))?,
        Some("toml") => toml::from_str(&text).map_err(|e| fault(&e))?,
        _ => return Err(fault(&"the name must end in .json or .toml")),
    };
    document
        .try_into()
        .map_err(|e: document::DocumentError| fault(&e))
}

async fn get(client: &Client, format: Format, hunt: String) -> Result<(), Failure> {
    let request = proto::GetHuntRequest {
        hunt,
        ..Default::default()
    };
    let answer = client.hunt(request).await?;
    let hunt = answer.hunt.unwrap_or_default();
    let state = document::hunt_state(hunt.state);
    if format == Format::Json {
        let treasures = hunt
            .treasures
            .iter()
            .map(|t| json!({"treasure": t.treasure, "limit": t.limit, "winners": t.winners}));
        return output::json(&json!({
            "hunt": hunt.id,
            "state": state,
            "revision": hunt.revision,
            "players": hunt.players,
            "definition": hunt.definition.as_ref().map(Definition::from),
            "clues": clue_stats(&hunt.clues),
            "treasures": treasures.collect::<Vec<_>>(),
            "as_of": as_of(answer.as_of.as_ref()),
        }));
    }
    output::line(&format!(
        "{}: {state}, revision {}, {} players",
        output::printable(&hunt.id),
        hunt.revision,
        hunt.players
    ))?;
    let rows = hunt.clues.iter().map(|clue| {
        vec![
            clue.clue.clone(),
            clue.attempts.to_string(),
            clue.solves.to_string(),
        ]
    });
    output::table(&["CLUE", "ATTEMPTS#", "SOLVES#"], rows)?;
    if hunt.treasures.is_empty() {
        return Ok(());
    }
    let rows = hunt.treasures.iter().map(|treasure| {
        vec![
            treasure.treasure.clone(),
            treasure.limit.to_string(),
            treasure.winners.join(", "),
        ]
    });
    output::table(&["TREASURE", "LIMIT#", "WINNERS"], rows)
}

async fn list(client: &Client, format: Format) -> Result<(), Failure> {
    let mut hunts = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = proto::ListHuntsRequest {
            page_size: 1_000,
            page_token,
            ..Default::default()
        };
        let page = client.hunts(request).await?;
        hunts.extend(page.hunts);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    if format == Format::Json {
        let hunts = hunts.iter().map(|hunt| {
            json!({
                "hunt": hunt.id,
                "title": hunt.title,
                "state": document::hunt_state(hunt.state),
                "revision": hunt.revision,
                "players": hunt.players,
            })
        });
        return output::json(&Value::Array(hunts.collect()));
    }
    let rows = hunts.into_iter().map(|hunt| {
        vec![
            hunt.id,
            document::hunt_state(hunt.state),
            hunt.revision.to_string(),
            hunt.players.to_string(),
            hunt.title,
        ]
    });
    output::table(&["HUNT", "STATE", "REVISION#", "PLAYERS#", "TITLE"], rows)
}

/// The best `limit` rows (all when 0), and the last page they came in.
pub async fn scoreboard(
    client: &Client,
    hunt: &str,
    limit: u64,
) -> Result<(Vec<proto::ScoreboardRow>, proto::GetScoreboardResponse), Failure> {
    let wanted = if limit == 0 { u64::MAX } else { limit };
    let mut rows = Vec::new();
    loop {
        let left = wanted - rows.len() as u64;
        let request = proto::GetScoreboardRequest {
            partition: client.partition(),
            hunt: hunt.to_owned(),
            page_size: u32::try_from(left).unwrap_or(PAGE).min(PAGE),
            skip: rows.len() as u64,
            consistency: None,
        };
        let mut page = client.scoreboard(request).await?;
        let got = page.rows.len();
        rows.append(&mut page.rows);
        if got == 0 || rows.len() as u64 >= wanted.min(page.total) {
            return Ok((rows, page));
        }
    }
}

fn print_scoreboard(
    format: Format,
    hunt: &str,
    rows: &[proto::ScoreboardRow],
    last: &proto::GetScoreboardResponse,
) -> Result<(), Failure> {
    if format == Format::Json {
        let rows = rows.iter().map(|row| {
            json!({
                "rank": row.rank,
                "player": row.player,
                "points": row.points,
                "solved": row.solved,
                "last_solve_offset": row.last_solve_offset,
                "last_solve_at": format_time_if(row.last_solve_at.as_ref()),
                "last_solve_occurred_at": format_time_if(row.last_solve_occurred_at.as_ref()),
            })
        });
        return output::json(&json!({
            "hunt": hunt,
            "total": last.total,
            "rows": rows.collect::<Vec<_>>(),
            "clues": clue_stats(&last.clues),
            "as_of": as_of(last.as_of.as_ref()),
        }));
    }
    let rows = rows.iter().map(|row| {
        let time = row
            .last_solve_occurred_at
            .as_ref()
            .or(row.last_solve_at.as_ref());
        vec![
            row.rank.to_string(),
            row.player.clone(),
            row.points.to_string(),
            row.solved.to_string(),
            row.last_solve_offset
                .map_or_else(|| "-".to_owned(), |o| o.to_string()),
            time.map_or_else(|| "-".to_owned(), format_time),
        ]
    });
    let columns = [
        "RANK#",
        "PLAYER",
        "POINTS#",
        "SOLVED#",
        "LAST SOLVE OFFSET#",
        "LAST SOLVE",
    ];
    output::table(&columns, rows)
}

fn clue_stats(clues: &[proto::ClueStats]) -> Vec<Value> {
    let clues = clues.iter();
    clues
        .map(|clue| json!({"clue": clue.clue, "attempts": clue.attempts, "solves": clue.solves}))
        .collect()
}

/// The moment an answer speaks of.
pub fn as_of(as_of: Option<&proto::AsOf>) -> Value {
    as_of.map_or(Value::Null, |as_of| {
        json!({
            "partition": as_of.partition,
            "offset": as_of.offset,
            "time": format_time_if(as_of.time.as_ref()),
        })
    })
}
