//! The ledger of a run: what was acknowledged, written down as it comes, so
//! that what the nodes hold can be compared with it later. JSON lines.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use huntlog_client::proto;
use prost::Message;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::failure::Failure;

/// One line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Record {
    /// The first line.
    Run {
        /// Of this format.
        version: u32,
        /// The hunt that is played.
        hunt: String,
        /// The partition it is in.
        partition: u32,
    },
    /// A batch that was acknowledged.
    Batch(AcknowledgedBatch),
    /// A batch that was not.
    Failed {
        /// Its session.
        session: String,
        /// Its number.
        sequence: u64,
        /// Nothing of it may be in the log.
        not_applied: bool,
    },
}

/// A batch that was acknowledged.
#[derive(Debug, Serialize, Deserialize)]
pub struct AcknowledgedBatch {
    /// Its session.
    pub session: String,
    /// Its number.
    pub sequence: u64,
    /// The Raft log entry that carries it.
    pub log_index: u64,
    /// How many events it has.
    pub events: usize,
    /// Of those accepted, the offset and the fingerprint; nothing when the
    /// cluster kept no outcomes.
    pub accepted: Vec<(u64, String)>,
    /// Whether `accepted` is all there is.
    pub outcomes_known: bool,
    /// An earlier attempt had been applied.
    pub duplicate: bool,
    /// How often it was sent; 0 when it was found in the log after a restart.
    pub attempts: u32,
    /// When the attempt that was answered was sent, in ns since 1970.
    pub sent_ns: u64,
    /// When the answer came, in ns since 1970.
    pub acked_ns: u64,
}

/// What an event is recognised by: the beginning of its SHA-256. Empty for the
/// creation of a hunt, whose answers the cluster replaces with hashes.
pub fn fingerprint(event: &proto::Event) -> String {
    if matches!(event.kind, Some(proto::event::Kind::HuntCreated(_))) {
        return String::new();
    }
    hex::encode(&Sha256::digest(event.encode_to_vec())[..8])
}

/// A ledger being written. Each line is written at once, so that it outlives
/// this process.
#[derive(Debug)]
pub struct LedgerWriter {
    file: File,
    name: String,
}

impl LedgerWriter {
    /// Starts a ledger, replacing what was there.
    pub fn create(path: &Path, hunt: &str, partition: u32) -> Result<Self, Failure> {
        let name = path.display().to_string();
        let file = File::create(path).map_err(Failure::io(format!("creating {name}")))?;
        let mut writer = Self { file, name };
        writer.write(&Record::Run {
            version: 1,
            hunt: hunt.to_owned(),
            partition,
        })?;
        Ok(writer)
    }

    /// Adds a line.
    pub fn write(&mut self, record: &Record) -> Result<(), Failure> {
        let mut line = serde_json::to_vec(record).expect("records have string keys only");
        line.push(b'\n');
        self.file
            .write_all(&line)
            .map_err(Failure::io(format!("writing {}", self.name)))
    }
}

/// Reads a ledger.
pub fn read(path: &Path) -> Result<Vec<Record>, Failure> {
    let name = path.display();
    let file = File::open(path).map_err(Failure::io(format!("opening {name}")))?;
    let mut records = Vec::new();
    for (index, line) in BufReader::new(file).lines().enumerate() {
        let line = line.map_err(Failure::io(format!("reading {name}")))?;
        let record = serde_json::from_str(&line)
            .map_err(|e| Failure::Usage(format!("{name}, line {}: {e}", index + 1)))?;
        records.push(record);
    }
    if !matches!(records.first(), Some(Record::Run { version: 1, .. })) {
        return Err(Failure::Usage(format!(
            "{name} is no ledger of this version"
        )));
    }
    Ok(records)
}
