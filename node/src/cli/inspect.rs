//! `huntlog-node inspect`: a data directory, offline and read only.

use std::fmt::Display;
use std::io::{self, Write};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use comfy_table::{Table, presets};
use huntlog_machine::LATEST_LEVEL;
use huntlog_storage::{
    FrameCounts, IndexInspection, InspectError, InspectOptions, Inspection, PartitionInspection,
    SegmentInspection, Severity, SnapshotInspection, Vote, inspect,
};
use indicatif::{ProgressBar, ProgressStyle};

use super::ExitStatus;

/// Leaders shown of a partition; JSON has all that are remembered.
const LEADERS_SHOWN: usize = 3;

/// The arguments of `inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The data directory.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Check every checksum, and the index against the segments; needs room for
    /// a copy of the index in the temporary directory.
    #[arg(long)]
    pub verify: bool,
    /// How to print what is found.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For reading.
    Table,
    /// For programs: one object.
    Json,
}

/// Why a directory was not inspected.
#[derive(Debug, thiserror::Error)]
pub enum InspectFailure {
    /// It cannot be inspected.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// The report cannot be written.
    #[error("writing the report failed: {0}")]
    Write(#[from] io::Error),
}

impl InspectArgs {
    /// Inspects the directory and writes what is found to `report`, with a
    /// progress bar on standard error if that is a terminal.
    ///
    /// # Errors
    /// When the directory is in use or cannot be read, or `report` can not be
    /// written.
    pub fn inspect(&self, report: &mut impl Write) -> Result<ExitStatus, InspectFailure> {
        let style = "{bar:40} {bytes}/{total_bytes} {binary_bytes_per_sec}, {eta} to go";
        let style = ProgressStyle::with_template(style).expect("a template of known keys");
        let progress = ProgressBar::no_length().with_style(style);
        let shown = progress.clone();
        let options = InspectOptions {
            verify: self.verify,
            data_version_max: LATEST_LEVEL,
            on_progress: Some(Arc::new(move |done, all| {
                shown.set_length(all);
                shown.set_position(done);
            })),
        };
        let found = inspect(&self.dir, &options);
        progress.finish_and_clear();
        let found = found?;
        match self.output {
            Output::Json => {
                serde_json::to_writer_pretty(&mut *report, &found).map_err(io::Error::from)?;
                writeln!(report)?;
            }
            Output::Table => write_tables(report, &found)?,
        }
        Ok(match found.is_sound() {
            true => ExitStatus::Success,
            false => ExitStatus::Faults,
        })
    }
}

fn write_tables(out: &mut impl Write, found: &Inspection) -> io::Result<()> {
    write_directory(out, found)?;
    if !found.partitions.is_empty() {
        writeln!(
            out,
            "\nPARTITIONS\n{}",
            partitions(&found.partitions).trim_fmt()
        )?;
    }
    if !found.segments.is_empty() {
        writeln!(out, "\nSEGMENTS\n{}", segments(&found.segments).trim_fmt())?;
    }
    if !found.snapshots.is_empty() {
        let checked = match found.verified {
            true => "CHECKSUMS",
            false => "HEADER",
        };
        writeln!(
            out,
            "\nSNAPSHOTS\n{}",
            snapshots(&found.snapshots, checked).trim_fmt()
        )?;
    }
    writeln!(out, "\nINDEX\n{}", index(&found.index).trim_fmt())?;
    if !found.findings.is_empty() {
        writeln!(out, "\nFINDINGS")?;
    }
    for finding in &found.findings {
        let position = finding
            .position
            .map_or_else(String::new, |position| format!(" byte {position}"));
        writeln!(
            out,
            "{}: {}{position}: {}\n    do: {}",
            finding.severity, finding.file, finding.what, finding.what_to_do
        )?;
    }
    let worst = found.findings.iter().map(|finding| finding.severity).max();
    let verdict = match (worst.unwrap_or(Severity::Note), found.verified) {
        (Severity::Note, true) => "sound: every checksum matches, and so does the index",
        (Severity::Note, false) => "sound as far as a start looks; --verify checks everything",
        (Severity::Repaired, _) => "not sound: a node repairs what was found, and loses nothing",
        (Severity::Refused, _) => "not sound: a node refuses what was found",
    };
    writeln!(out, "\n{verdict}")
}

fn write_directory(out: &mut impl Write, found: &Inspection) -> io::Result<()> {
    let identity = match &found.identity {
        None => "none".to_owned(),
        Some(identity) => format!(
            "node {} (uuid {}) of cluster {:?}, {}",
            identity.node_id,
            identity.node_uuid,
            identity.cluster_name,
            match identity.cluster_id.as_str() {
                "" => "which is not formed yet".to_owned(),
                id => format!("id {id}"),
            }
        ),
    };
    let mark = found.mark.map_or_else(
        || "missing".to_owned(),
        |mark| {
            let (at, slots) = (or_none(mark.synced_to), mark.valid_slots);
            format!(
                "{at}, batch {}, {slots} of 2 slots valid",
                or_none(mark.batch)
            )
        },
    );
    let rows = [
        ("data directory", found.dir.display().to_string()),
        ("data version", or_none(found.data_version)),
        ("identity", identity),
        ("high-water mark", mark),
        ("synced through", or_none(found.synced_to)),
    ];
    for (name, value) in rows {
        writeln!(out, "{name:16} {value}")?;
    }
    Ok(())
}

fn or_none<T: Display>(value: Option<T>) -> String {
    value.map_or_else(|| "none".to_owned(), |value| value.to_string())
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header.iter().copied());
    table
}

/// Indexes as people count them: both ends included.
fn range(range: &Range<u64>) -> String {
    match range.end.checked_sub(1) {
        Some(last) if range.start <= last => format!("{}-{last}", range.start),
        _ => "none".to_owned(),
    }
}

fn ranges(all: &[Range<u64>]) -> String {
    match all {
        [] => "none".to_owned(),
        all => all.iter().map(range).collect::<Vec<_>>().join(" "),
    }
}

fn vote(vote: &Vote) -> String {
    let elected = match vote.committed {
        true => ", elected",
        false => "",
    };
    format!("term {} node {}{elected}", vote.term, vote.node_id)
}

fn partitions(all: &[PartitionInspection]) -> Table {
    let mut table = table(&[
        "PARTITION",
        "VOTE",
        "PURGED",
        "LAST",
        "LIVE",
        "KEPT",
        "LEADERS",
    ]);
    for partition in all {
        let shown = partition.terms.len().saturating_sub(LEADERS_SHOWN);
        let mut leaders: Vec<String> = partition.terms[shown..]
            .iter()
            .map(|run| format!("T{}-N{} from {}", run.term, run.node_id, run.first_index))
            .collect();
        if shown > 0 {
            leaders.insert(0, format!("{shown} more"));
        }
        table.add_row([
            partition.partition.to_string(),
            partition.vote.as_ref().map_or("none".to_owned(), vote),
            or_none(partition.purged),
            or_none(partition.last),
            range(&partition.live),
            ranges(&partition.history),
            leaders.join(", "),
        ]);
    }
    table
}

fn segments(all: &[SegmentInspection]) -> Table {
    let mut table = table(&[
        "SEGMENT",
        "SIZE",
        "USED",
        "STATE",
        "ENTRIES",
        "BATCHES",
        "VOTES",
        "TRUNCATIONS",
        "PURGES",
        "RELEASES",
        "CHECKPOINTS",
    ]);
    for segment in all {
        let state = match (segment.in_log, segment.sealed) {
            (false, _) => "not in the log",
            (true, true) => "sealed",
            (true, false) => "open",
        };
        let entries: Vec<String> = segment
            .entries
            .iter()
            .map(|of| {
                let (count, partition) = (of.entries, of.partition);
                format!(
                    "{count} of p{partition}: {}-{}",
                    of.first_index, of.last_index
                )
            })
            .collect();
        let frames = |count: fn(&FrameCounts) -> u64| {
            segment
                .frames
                .as_ref()
                .map_or_else(|| "-".to_owned(), |frames| count(frames).to_string())
        };
        table.add_row([
            segment.number.to_string(),
            segment.size_bytes.to_string(),
            segment.used_bytes.to_string(),
            state.to_owned(),
            entries.join(", "),
            frames(|frames| frames.batches),
            frames(|frames| frames.votes),
            frames(|frames| frames.truncations),
            frames(|frames| frames.purges),
            frames(|frames| frames.releases),
            frames(|frames| frames.checkpoints),
        ]);
    }
    table
}

fn snapshots(all: &[SnapshotInspection], checked: &str) -> Table {
    let mut table = table(&["PARTITION", "LAST", "SIZE", checked]);
    for snapshot in all {
        let sound = match snapshot.checksum_ok {
            true => "ok",
            false => "damaged",
        };
        table.add_row([
            or_none(snapshot.partition),
            or_none(snapshot.last),
            snapshot.size_bytes.to_string(),
            sound.to_owned(),
        ]);
    }
    table
}

fn index(index: &IndexInspection) -> Table {
    let mut table = table(&["STATE", "SIZE", "CURSOR", "ENTRIES", "RECORDS", "COMMITTED"]);
    let state = match (index.present, index.rebuild_marked) {
        (false, _) => "missing",
        (true, true) => "to be rebuilt",
        (true, false) => "present",
    };
    let of_each = |text: &dyn Fn(&huntlog_storage::RecordsInspection) -> String| {
        let all = index.records.iter();
        let all = all.map(|kept| format!("p{}: {}", kept.partition, text(kept)));
        all.collect::<Vec<_>>().join(", ")
    };
    table.add_row([
        state.to_owned(),
        index.size_bytes.to_string(),
        index
            .cursor
            .map_or("-".to_owned(), |cursor| cursor.to_string()),
        index
            .entries
            .map_or("-".to_owned(), |entries| entries.to_string()),
        of_each(&|kept| ranges(&kept.records)),
        of_each(&|kept| or_none(kept.committed)),
    ]);
    table
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use huntlog_storage::{Identity, LogEntry, LogId, Options, Storage};
    use std::path::Path;
    use std::sync::mpsc;

    use super::super::{Cli, Command};
    use super::*;

    fn run(dir: &Path, flags: &[&str]) -> (ExitStatus, String) {
        let arguments = ["huntlog-node".as_ref(), "inspect".as_ref(), dir.as_os_str()];
        let flags = flags.iter().map(std::ffi::OsStr::new);
        let cli = Cli::try_parse_from(arguments.into_iter().chain(flags));
        let Command::Inspect(arguments) = cli.expect("a command line").command else {
            panic!("inspect is inspect");
        };
        let mut report = Vec::new();
        let status = arguments.inspect(&mut report).expect("it can be read");
        (status, String::from_utf8(report).expect("UTF-8"))
    }

    fn sample(dir: &Path) {
        let (storage, _) = Storage::open(dir, Options::default()).expect("opened");
        let identity = Identity {
            cluster_id: "c-1".to_owned(),
            cluster_name: "test".to_owned(),
            node_id: 1,
            node_uuid: "0190".to_owned(),
            members: Vec::new().into(),
        };
        storage.save_identity(&identity).expect("saved");
        let entries = (0..5).map(|index| LogEntry {
            id: LogId {
                term: 3,
                node_id: 1,
                index,
            },
            payload: vec![1; 100].into(),
        });
        let (said, done) = mpsc::channel();
        let log = storage.partition(0);
        log.append(
            entries.collect(),
            Box::new(move |done| drop(said.send(done))),
        );
        done.recv().expect("answered").expect("durable");
        storage.close().expect("closed");
    }

    #[test]
    fn a_directory_is_shown_in_tables_and_as_json() {
        let dir = tempfile::tempdir().expect("a directory");
        sample(dir.path());
        let (status, report) = run(dir.path(), &["--verify"]);
        assert_eq!(status, ExitStatus::Success, "{report}");
        for part in ["5 of p0: 0-4", "T3-N1 from 0", "sound: every checksum"] {
            assert!(report.contains(part), "{part} is not in\n{report}");
        }
        let (status, report) = run(dir.path(), &["-o", "json"]);
        assert_eq!(status, ExitStatus::Success, "{report}");
        let json: serde_json::Value = serde_json::from_str(&report).expect("JSON");
        assert_eq!(json["partitions"][0]["last"]["index"], 4);
    }

    #[test]
    fn faults_have_a_status_of_their_own_and_say_what_to_do() {
        let dir = tempfile::tempdir().expect("a directory");
        sample(dir.path());
        let segment = dir.path().join("segments/00000000000000000001.segment");
        let mut bytes = std::fs::read(&segment).expect("there");
        bytes[400] ^= 1;
        std::fs::write(&segment, bytes).expect("written");
        let (status, report) = run(dir.path(), &[]);
        assert_eq!(status, ExitStatus::Faults, "{report}");
        for part in ["refused: ", "00001.segment byte ", "under a new node id"] {
            assert!(report.contains(part), "{part} is not in\n{report}");
        }
    }
}
