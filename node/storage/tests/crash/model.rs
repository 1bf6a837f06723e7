//! What a log is, in the plainest way.

use huntlog_storage::{LogEntry, LogId, PartitionLog, Vote};
use std::collections::BTreeMap;

#[derive(Debug, Clone)]
pub enum Op {
    Append(Vec<LogEntry>),
    Vote(Vote),
    Truncate(Option<LogId>),
    Purge { upto: LogId, committed_end: u64 },
    Release(u64),
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Model {
    pub vote: Option<Vote>,
    pub purged: Option<LogId>,
    pub last: Option<LogId>,
    /// Everything that can be read.
    pub entries: BTreeMap<u64, LogEntry>,
}

impl Model {
    pub fn live_start(&self) -> u64 {
        self.purged.map_or(0, |purged| purged.index + 1)
    }

    pub fn next_index(&self) -> u64 {
        self.last.map_or(0, |last| last.index + 1)
    }

    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::Append(entries) => {
                for entry in entries {
                    assert_eq!(entry.id.index, self.next_index());
                    self.last = Some(entry.id);
                    self.entries.insert(entry.id.index, entry.clone());
                }
            }
            Op::Vote(vote) => self.vote = Some(*vote),
            Op::Truncate(after) => {
                let end = after.map_or(self.live_start(), |after| after.index + 1);
                if end < self.next_index() {
                    self.entries.split_off(&end);
                    self.last = end
                        .checked_sub(1)
                        .map(|index| self.entries.get(&index).map(|entry| entry.id))
                        .unwrap_or(None)
                        .or(self.purged);
                }
            }
            Op::Purge {
                upto,
                committed_end,
            } => {
                if self.entries.get(&upto.index).map(|entry| entry.id) != Some(*upto) {
                    let end = self.live_start().max(*committed_end).min(upto.index);
                    self.entries.split_off(&end);
                    self.last = Some(*upto);
                }
                self.purged = Some(*upto);
            }
            Op::Release(first_kept) => {
                let first_kept = (*first_kept).min(self.live_start());
                self.entries = self.entries.split_off(&first_kept);
            }
        }
    }

    /// What is found in the place of this model; the difference if there is one.
    pub fn compare(&self, log: &PartitionLog) -> Result<(), String> {
        let found = (log.vote(), log.last_purged(), log.last());
        let expected = (self.vote, self.purged, self.last);
        if found != expected {
            return Err(format!(
                "(vote, purged, last): expected {expected:?}, found {found:?}"
            ));
        }
        let kept: Vec<u64> = log.history().into_iter().flatten().collect();
        if !kept.iter().eq(self.entries.keys()) {
            return Err(format!(
                "history: expected {:?}, found {:?}",
                self.entries.keys(),
                log.history()
            ));
        }
        for range in log.history() {
            let mut at = range.start;
            while at < range.end {
                let read = log
                    .read_history(at..range.end, 1500)
                    .map_err(|error| error.to_string())?;
                if read.is_empty() {
                    return Err(format!("entry {at} is not there"));
                }
                for entry in read {
                    if self.entries.get(&at) != Some(&entry) {
                        return Err(format!(
                            "entry {at}: expected {:?}, found {entry:?}",
                            self.entries.get(&at)
                        ));
                    }
                    at += 1;
                }
            }
        }
        Ok(())
    }
}
