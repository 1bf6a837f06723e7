//! Sessions.

use std::time::Duration;

use huntlog_client::{Client, proto};
use serde_json::{Value, json};

use crate::args::SessionCommand;
use crate::failure::Failure;
use crate::output::{self, Format};

pub async fn run(client: &Client, format: Format, command: SessionCommand) -> Result<(), Failure> {
    let SessionCommand::List = command;
    let mut sessions = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = proto::ListSessionsRequest {
            partition: client.partition(),
            page_size: 1_000,
            page_token,
        };
        let page = client.sessions(request).await?;
        sessions.extend(page.sessions);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let idle = |session: &proto::SessionInfo| {
        session
            .idle
            .and_then(|idle| Duration::try_from(idle).ok())
            .unwrap_or_default()
    };
    if format == Format::Json {
        let sessions = sessions.iter().map(|session| {
            json!({
                "session": session.session,
                "epoch": session.epoch,
                "last_sequence": session.last_sequence,
                "idle_ms": u64::try_from(idle(session).as_millis()).unwrap_or(u64::MAX),
            })
        });
        return output::json(&Value::Array(sessions.collect()));
    }
    let rows = sessions.iter().map(|session| {
        vec![
            session.session.clone(),
            session.epoch.to_string(),
            session.last_sequence.to_string(),
            format!("{:.1?}", idle(session)),
        ]
    });
    output::table(&["SESSION", "EPOCH#", "LAST SEQUENCE#", "IDLE#"], rows)
}
