//! What a run observes of itself: counts, latencies, the longest silence, and
//! how it got over what a script broke in its middle.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use serde_json::{Value, json};

use crate::args::RunArguments;
use crate::failure::Failure;
use crate::progress;
use crate::time::wall_ns;

/// An acknowledgement as the monitor sees it.
#[derive(Debug)]
pub struct Acknowledgement {
    /// Events of the batch.
    pub events: u64,
    /// Of those, rejected by the rules of the hunt.
    pub rejected: u64,
    /// How often it was sent.
    pub attempts: u32,
    /// An earlier attempt had been applied.
    pub duplicate: bool,
    /// When it was handed to the client library.
    pub submitted: Instant,
    /// When the attempt that was answered was sent.
    pub sent: Instant,
    /// When the answer came.
    pub acked: Instant,
}

#[derive(Debug, Default)]
struct Counts {
    sent: u64,
    acknowledged: u64,
    rejected: u64,
    retried: u64,
    duplicates: u64,
    recovered: u64,
    batches: u64,
}

#[derive(Debug)]
struct Signal {
    after_events: u64,
    file: PathBuf,
}

/// A run's observations.
#[derive(Debug)]
pub struct Monitor {
    started: Instant,
    started_ns: u64,
    counts: Counts,
    latency_us: Histogram<u64>,
    /// Of each acknowledgement: when its attempt was sent, when it came, in ns
    /// since 1970.
    acks: Vec<(u64, u64)>,
    signal: Option<Signal>,
    mark_file: Option<PathBuf>,
    bar: ProgressBar,
}

impl Monitor {
    /// Of a run of so many events.
    pub fn new(total_events: u64, arguments: &RunArguments, what: &'static str) -> Self {
        let share = arguments.signal_at.unwrap_or(1.0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a share of a count, to be reached roughly"
        )]
        let after_events = (total_events as f64 * share) as u64;
        Self {
            started: Instant::now(),
            started_ns: wall_ns(),
            counts: Counts::default(),
            latency_us: Histogram::new(3).expect("three digits are within its range"),
            acks: Vec::new(),
            signal: arguments
                .signal_file
                .clone()
                .map(|file| Signal { after_events, file }),
            mark_file: arguments.mark_file.clone(),
            bar: progress::bar(total_events, what),
        }
    }

    /// Wall time of a reading of the monotonic clock.
    pub fn wall_ns(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.started).as_nanos();
        self.started_ns + u64::try_from(since).unwrap_or(u64::MAX / 2)
    }

    /// So many events are on their way.
    pub fn sent(&mut self, events: u64) {
        self.counts.sent += events;
    }

    /// So many events were found applied by an earlier process. True when that
    /// gave the signal.
    pub fn recovered(&mut self, events: u64) -> Result<bool, Failure> {
        self.counts.recovered += events;
        self.bar.inc(events);
        self.signal_if_due()
    }

    /// A batch was acknowledged. True when that gave the signal.
    pub fn acknowledged(&mut self, ack: &Acknowledgement) -> Result<bool, Failure> {
        let counts = &mut self.counts;
        counts.batches += 1;
        counts.acknowledged += ack.events;
        counts.rejected += ack.rejected;
        if ack.attempts > 1 {
            counts.retried += ack.events;
        }
        if ack.duplicate {
            counts.duplicates += ack.events;
        }
        let latency = ack.acked.saturating_duration_since(ack.submitted);
        self.latency_us
            .record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX))
            .expect("it grows with what is recorded");
        self.acks
            .push((self.wall_ns(ack.sent), self.wall_ns(ack.acked)));
        self.bar.inc(ack.events);
        self.signal_if_due()
    }

    fn signal_if_due(&mut self) -> Result<bool, Failure> {
        let done = self.counts.acknowledged + self.counts.recovered;
        let Some(signal) = self.signal.take_if(|signal| done >= signal.after_events) else {
            return Ok(false);
        };
        let text = json!({"acknowledged": done, "wall_ns": wall_ns()}).to_string();
        let name = signal.file.display();
        // Renamed into place: whoever waits for it never sees half of it.
        let draft = signal.file.with_extension("draft");
        std::fs::write(&draft, text)
            .and_then(|()| std::fs::rename(&draft, &signal.file))
            .map_err(Failure::io(format!("writing {name}")))?;
        Ok(true)
    }

    /// Ends the run and sums it up.
    pub fn finish(mut self) -> Result<Value, Failure> {
        self.bar.finish_and_clear();
        let elapsed = self.started.elapsed();
        self.acks.sort_unstable_by_key(|(_, acked)| *acked);
        let marks = self.mark_file.as_deref().map(read_marks).transpose()?;
        let marks = marks.flatten();
        let counts = &self.counts;
        Ok(json!({
            "events": {
                "sent": counts.sent,
                "acknowledged": counts.acknowledged,
                "rejected": counts.rejected,
                "retried": counts.retried,
                "duplicates": counts.duplicates,
                "recovered": counts.recovered,
            },
            "batches": counts.batches,
            "elapsed_ms": millis(elapsed),
            "events_per_second": per_second(counts.acknowledged, elapsed),
            "ack_latency_us": {
                "p50": self.latency_us.value_at_quantile(0.5),
                "p99": self.latency_us.value_at_quantile(0.99),
                "max": self.latency_us.max(),
            },
            "longest_gap": longest_gap(&self.acks),
            "mark": marks.map(|marks| recovery(&self.acks, marks)),
        }))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn per_second(events: u64, elapsed: Duration) -> u64 {
    let micros = elapsed.as_micros().max(1);
    u64::try_from(u128::from(events) * 1_000_000 / micros).unwrap_or(u64::MAX)
}

/// The longest time without an acknowledgement between two of them.
fn longest_gap(acks: &[(u64, u64)]) -> Value {
    acks.windows(2)
        .map(|pair| (pair[1].1 - pair[0].1, pair[0].1))
        .max()
        .map_or(Value::Null, |(gap_ns, began_ns)| {
            json!({"ms": gap_ns / 1_000_000, "began_ns": began_ns, "ended_ns": began_ns + gap_ns})
        })
}

/// The wall times just before and just after something was broken. None while
/// nobody has written them.
fn read_marks(path: &Path) -> Result<Option<(u64, u64)>, Failure> {
    let name = path.display();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Failure::io(format!("reading {name}"))(source)),
    };
    let numbers: Result<Vec<u64>, _> = text.split_whitespace().map(str::parse).collect();
    match numbers.as_deref() {
        Ok([at]) => Ok(Some((*at, *at))),
        Ok([before, after]) if before <= after => Ok(Some((*before, *after))),
        _ => Err(Failure::Usage(format!(
            "{name} holds neither one nor two ascending times in ns since 1970"
        ))),
    }
}

/// From the first mark to the first acknowledgement of an attempt that was sent
/// after the second: what was sent before may have been answered already.
fn recovery(acks: &[(u64, u64)], (before, after): (u64, u64)) -> Value {
    let next = acks.iter().find(|(sent, _)| *sent > after);
    json!({
        "before_ns": before,
        "after_ns": after,
        "next_ack_ns": next.map(|(_, acked)| acked),
        "to_next_ack_ms": next.map(|(_, acked)| (acked - before) / 1_000_000),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recovery_counts_from_the_kill_to_an_answer_to_something_sent_after_it() {
        const MS: u64 = 1_000_000;
        // The second was in the socket already when the kill came at 10 ms.
        let acks = [(5 * MS, 9 * MS), (8 * MS, 11 * MS), (300 * MS, 350 * MS)];
        let marks = (10 * MS, 12 * MS);
        assert_eq!(recovery(&acks, marks)["to_next_ack_ms"], 340);
        assert_eq!(longest_gap(&acks)["ms"], 339);
        assert_eq!(recovery(&acks[..2], marks)["to_next_ack_ms"], Value::Null);
    }
}
