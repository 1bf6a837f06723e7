//! Leadership.

use huntlog_client::Client;
use serde_json::json;

use crate::args::LeaderCommand;
use crate::failure::Failure;
use crate::output::{self, Format};

pub async fn run(client: &Client, format: Format, command: LeaderCommand) -> Result<(), Failure> {
    let LeaderCommand::Transfer { to } = command;
    let answer = client.transfer_leader(to).await?;
    match format {
        Format::Json => output::json(&json!({"leader_id": answer.leader_id, "term": answer.term})),
        Format::Table => output::line(&format!(
            "node {} leads in term {}",
            answer.leader_id, answer.term
        )),
    }
}
