//! Taking a node out of service, and back.

use huntlog_client::ClientOptions;
use serde_json::json;

use super::cluster::only;
use crate::failure::Failure;
use crate::output::{self, Format};

pub async fn run(
    node: &str,
    undo: bool,
    options: &ClientOptions,
    format: Format,
) -> Result<(), Failure> {
    let answer = only(node, options)?.drain_node(undo).await?;
    let state = match answer.draining {
        true => "drained",
        false => "in service",
    };
    match format {
        Format::Json => output::json(&json!({
            "node": node,
            "node_id": answer.node_id,
            "draining": answer.draining,
        })),
        Format::Table => output::line(&format!("{node}: node {} is {state}", answer.node_id)),
    }
}
