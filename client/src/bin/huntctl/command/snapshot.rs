//! Snapshots.

use huntlog_client::ClientOptions;
use serde_json::json;

use super::cluster::only;
use crate::failure::Failure;
use crate::output::{self, Format};

pub async fn run(node: &str, options: &ClientOptions, format: Format) -> Result<(), Failure> {
    let answer = only(node, options)?.take_snapshot().await?;
    match format {
        Format::Json => output::json(&json!({
            "node": node,
            "log_index": answer.log_index,
            "size_bytes": answer.size_bytes,
        })),
        Format::Table => output::line(&format!(
            "{node}: snapshot of log index {}, {} bytes",
            answer.log_index, answer.size_bytes
        )),
    }
}
