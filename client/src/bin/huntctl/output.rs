//! What goes to standard output, as a table for people or JSON for programs.

use std::io::Write;

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use serde_json::Value;

use crate::failure::Failure;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Aligned columns, for people.
    Table,
    /// One JSON document, or one per line where results keep coming.
    Json,
}

/// Prints one line.
pub fn line(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")
        .and_then(|()| out.flush())
        .map_err(Failure::io("writing to standard output"))
}

/// Tells on standard error what is not as it should be although it went well.
pub fn warn(warnings: &[String]) {
    for warning in warnings {
        // If standard error is closed, there is nobody to tell.
        let _ = writeln!(
            std::io::stderr(),
            "huntctl: warning: {}",
            printable(warning)
        );
    }
}

/// Prints one JSON document over several lines.
pub fn json(value: &Value) -> Result<(), Failure> {
    line(&format!("{value:#}"))
}

/// Prints one JSON document in one line.
pub fn json_line(value: &Value) -> Result<(), Failure> {
    line(&value.to_string())
}

/// A table of these rows; columns whose names end in `#` hold numbers.
pub fn table(columns: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> Result<(), Failure> {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(columns.iter().map(|name| name.trim_end_matches('#')));
    for row in rows {
        table.add_row(row.into_iter().zip(columns).map(|(text, column)| {
            let cell = Cell::new(printable(&text));
            if column.ends_with('#') {
                cell.set_alignment(CellAlignment::Right)
            } else {
                cell
            }
        }));
    }
    line(&table.trim_fmt())
}

/// How a column says whether something is so.
pub fn yes_or_no(is: bool) -> String {
    if is { "yes" } else { "no" }.to_owned()
}

/// Names and answers come from strangers: no control characters to a terminal.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}
