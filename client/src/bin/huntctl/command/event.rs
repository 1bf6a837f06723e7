//! Appending, reading and following events.

use std::io::Read;
use std::path::Path;

use huntlog_client::proto::consistency::Level;
use huntlog_client::{Client, Start, proto};
use serde_json::json;

use super::{describe_effect, open, print_outcomes, throwaway_session};
use crate::args::{EventCommand, FilterArguments};
use crate::document;
use crate::failure::Failure;
use crate::output::{self, Format};
use crate::time::format_time;

pub async fn run(client: &Client, format: Format, command: EventCommand) -> Result<(), Failure> {
    match command {
        EventCommand::Append {
            event,
            file,
            session,
            atomic,
        } => {
            let events = match event {
                Some(text) => vec![parse(&text).map_err(Failure::Usage)?],
                None => parse_lines(&read_input(&file)?)?,
            };
            append(client, format, events, session, atomic).await
        }
        EventCommand::Read {
            from,
            limit,
            filter,
            stale,
        } => {
            let level = if stale {
                Level::Stale(proto::Stale { min_offset: 0 })
            } else {
                Level::Linearizable(())
            };
            let request = proto::ReadRequest {
                from_offset: from,
                max_events: limit,
                filter: Some(parse_filter(filter)?),
                consistency: Some(proto::Consistency { level: Some(level) }),
                ..Default::default()
            };
            let mut reader = client.read(request);
            while let Some(event) = reader.next().await? {
                print(format, &event)?;
            }
            Ok(())
        }
        EventCommand::Tail {
            from,
            limit,
            filter,
        } => {
            let start = from.map_or(Start::End, Start::Offset);
            let mut subscription = client.subscribe(start, Some(parse_filter(filter)?));
            let mut left = limit.unwrap_or(u64::MAX);
            while left > 0 {
                let event = subscription.next().await?;
                print(format, &event)?;
                left -= 1;
            }
            Ok(())
        }
    }
}

async fn append(
    client: &Client,
    format: Format,
    events: Vec<proto::Event>,
    session: Option<String>,
    atomic: bool,
) -> Result<(), Failure> {
    if events.is_empty() {
        return Err(Failure::Usage("no event given".to_owned()));
    }
    let session = session.unwrap_or_else(throwaway_session);
    let producer = open(client, &session).await?;
    if atomic {
        let appended = producer.append_batch(events).await?.await?;
        return print_outcomes(format, &appended);
    }
    let mut tickets = Vec::with_capacity(events.len());
    let mut first_failure = None;
    let total = events.len();
    for event in events {
        match producer.append_batch(vec![event]).await {
            Ok(ticket) => tickets.push(ticket),
            Err(error) if tickets.is_empty() => return Err(error.into()),
            // What was taken before it is seen through and told first.
            Err(error) => {
                let number = tickets.len() + 1;
                first_failure = Some(Failure::Refused(format!(
                    "event {number} of {total} was not sent, nor what follows it: {error}"
                )));
                break;
            }
        }
    }
    for ticket in tickets {
        let result = ticket.await.map_err(Failure::from);
        let result = result.and_then(|appended| print_outcomes(format, &appended));
        if let Err(failure) = result {
            first_failure.get_or_insert(failure);
        }
    }
    first_failure.map_or(Ok(()), Err)
}

fn read_input(path: &Path) -> Result<String, Failure> {
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .map_err(Failure::input("standard input"))?;
        return Ok(text);
    }
    std::fs::read_to_string(path).map_err(Failure::input(path.display().to_string()))
}

fn parse_lines(text: &str) -> Result<Vec<proto::Event>, Failure> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(index, line)| {
            parse(line).map_err(|fault| Failure::Usage(format!("line {}: {fault}", index + 1)))
        })
        .collect()
}

fn parse(text: &str) -> Result<proto::Event, String> {
    let document: document::Event = serde_json::from_str(text).map_err(|e| e.to_string())?;
    document
        .try_into()
        .map_err(|e: document::DocumentError| e.to_string())
}

fn parse_filter(arguments: FilterArguments) -> Result<proto::Filter, Failure> {
    let types = arguments.kind.iter().map(|name| {
        let wire = format!("EVENT_TYPE_{}", name.to_ascii_uppercase().replace('-', "_"));
        proto::EventType::from_str_name(&wire)
            .filter(|kind| *kind != proto::EventType::Unspecified)
            .map(i32::from)
            .ok_or_else(|| Failure::Usage(format!("{name:?} is no kind of event")))
    });
    Ok(proto::Filter {
        types: types.collect::<Result<_, _>>()?,
        hunts: arguments.hunt,
        players: arguments.player,
    })
}

fn print(format: Format, committed: &proto::CommittedEvent) -> Result<(), Failure> {
    if format == Format::Json {
        return output::json_line(&document::committed(committed));
    }
    let event = committed.event.clone().unwrap_or_default();
    let document = json!(document::Event::from(&event));
    let kind = document::kind_name(&event);
    let detail = document
        .get(kind)
        .map_or_else(String::new, ToString::to_string);
    let effects: Vec<String> = committed.effects.iter().map(describe_effect).collect();
    let at = committed
        .committed_at
        .as_ref()
        .map_or_else(String::new, format_time);
    output::line(&format!(
        "{:>8}  {at}  {}  {}  {kind} {detail}  {}",
        committed.offset,
        output::printable(&event.hunt),
        output::printable(&event.player),
        effects.join(", ")
    ))
}
