//! What became of the requests of a run.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use huntlog_client::{AppendError, Appended, Cause, Disposition};
use serde::Serialize;

use super::figures::{Figures, add_latencies};
use crate::run::offset;

/// Callers that share one lock: few of them meet.
const SHARDS: usize = 16;

/// The part of a run that is measured.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    pub start: Instant,
    pub end: Instant,
}

impl Window {
    pub fn contains(&self, at: Instant) -> bool {
        self.start <= at && at < self.end
    }

    pub fn duration(&self) -> Duration {
        self.end - self.start
    }
}

/// A part of a run, about a second long.
#[derive(Debug, Clone, Serialize)]
pub struct Interval {
    /// When it ended, from the beginning of the window.
    pub end_seconds: f64,
    #[serde(rename = "rate_per_second")]
    pub rate: f64,
    /// Of the requests answered in it.
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    /// Appends that failed in it.
    pub errors: u64,
}

/// A sum over requests.
#[derive(Debug)]
pub struct Tally {
    /// Of the requests that began within the window, until their answers.
    times_us: Histogram<u64>,
    /// Acknowledged within the window.
    pub events: u64,
    rejected: u64,
    retries: u64,
    duplicates: u64,
    unsent: u64,
    /// Appends that failed, by kind.
    pub errors: BTreeMap<String, u64>,
    /// By session, the sequences acknowledged, when they are to be verified.
    pub acknowledged: Option<Vec<(usize, u64)>>,
    /// One past the last offset acknowledged.
    pub end_offset: u64,
    latest: Latest,
}

/// What was answered since the last interval ended.
#[derive(Debug)]
struct Latest {
    times_us: Histogram<u64>,
    events: u64,
    errors: u64,
}

impl Latest {
    fn new() -> Self {
        Self {
            times_us: new_histogram(),
            events: 0,
            errors: 0,
        }
    }

    fn merge(&mut self, other: &Self) {
        self.times_us
            .add(&other.times_us)
            .expect("it grows with what is added");
        self.events += other.events;
        self.errors += other.errors;
    }
}

impl Tally {
    fn new(keep: bool) -> Self {
        Self {
            times_us: new_histogram(),
            events: 0,
            rejected: 0,
            retries: 0,
            duplicates: 0,
            unsent: 0,
            errors: BTreeMap::new(),
            acknowledged: keep.then(Vec::new),
            end_offset: 0,
            latest: Latest::new(),
        }
    }

    fn merge(&mut self, other: Self) {
        self.times_us
            .add(other.times_us)
            .expect("it grows with what is added");
        self.events += other.events;
        self.rejected += other.rejected;
        self.retries += other.retries;
        self.duplicates += other.duplicates;
        self.unsent += other.unsent;
        for (kind, count) in other.errors {
            *self.errors.entry(kind).or_default() += count;
        }
        if let (Some(all), Some(more)) = (&mut self.acknowledged, other.acknowledged) {
            all.extend(more);
        }
        self.end_offset = self.end_offset.max(other.end_offset);
    }

    /// The figures of appending.
    pub fn add_to(&self, figures: &mut Figures, window: &Window) {
        let rate = self.events as f64 / window.duration().as_secs_f64();
        let errors: u64 = self.errors.values().sum();
        figures.extend([
            ("rate", rate),
            ("errors", errors as f64),
            ("unsent", self.unsent as f64),
            ("rejected", self.rejected as f64),
            ("retries", self.retries as f64),
            ("duplicates", self.duplicates as f64),
        ]);
        let names = ["mean", "p50", "p90", "p99", "p99.9", "max"];
        add_latencies(figures, names, &self.times_us);
    }
}

/// Takes what callers report, from any thread.
#[derive(Debug)]
pub struct Recorder {
    window: Window,
    shards: Vec<Mutex<Tally>>,
}

impl Recorder {
    /// For a run measured within `window`; `keep` which batches were
    /// acknowledged.
    pub fn new(window: Window, keep: bool) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::new(Tally::new(keep)));
        Self {
            window,
            shards: shards.collect(),
        }
    }

    fn with(&self, session: usize, change: impl FnOnce(&mut Tally)) {
        let shard = &self.shards[session % SHARDS];
        change(&mut shard.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// An answer came now to a session's request that began at `began`.
    pub fn answered(&self, session: usize, began: Instant, result: &Result<Appended, AppendError>) {
        let now = Instant::now();
        let appended = match result {
            Ok(appended) => appended,
            Err(error) => {
                let kind = error_kind(error);
                return self.with(session, |tally| {
                    *tally.errors.entry(kind).or_default() += 1;
                    tally.latest.errors += 1;
                });
            }
        };
        let outcomes = appended.outcomes.as_deref().unwrap_or_default();
        let last = outcomes.last().and_then(offset);
        let rejected = outcomes.iter().filter(|o| offset(o).is_none()).count();
        let accepted = (outcomes.len() - rejected) as u64;
        let waited = now.saturating_duration_since(began);
        self.with(session, |tally| {
            record(&mut tally.latest.times_us, waited);
            tally.latest.events += accepted;
            if self.window.contains(began) {
                record(&mut tally.times_us, waited);
            }
            if self.window.contains(now) {
                tally.events += accepted;
            }
            tally.rejected += rejected as u64;
            tally.retries += u64::from(appended.attempts.saturating_sub(1));
            tally.duplicates += u64::from(appended.duplicate);
            tally.end_offset = tally.end_offset.max(last.map_or(0, |last| last + 1));
            if let Some(kept) = &mut tally.acknowledged {
                kept.push((session, appended.sequence));
            }
        });
    }

    /// So many requests were due and could not be handed over.
    pub fn unsent(&self, requests: u64) {
        self.with(0, |tally| tally.unsent += requests);
    }

    /// Events acknowledged within the window so far.
    pub fn events(&self) -> u64 {
        let shards = self.shards.iter();
        shards
            .map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).events)
            .sum()
    }

    /// Ends an interval that began `since`, and begins the next.
    pub fn end_interval(&self, since: Instant) -> Interval {
        let mut latest = Latest::new();
        for shard in &self.shards {
            let mut tally = shard.lock().unwrap_or_else(PoisonError::into_inner);
            latest.merge(&std::mem::replace(&mut tally.latest, Latest::new()));
        }
        let now = Instant::now();
        let times_us = &latest.times_us;
        let millis = |us: u64| us as f64 / 1e3;
        Interval {
            end_seconds: now
                .saturating_duration_since(self.window.start)
                .as_secs_f64(),
            rate: latest.events as f64 / (now - since).as_secs_f64(),
            p50_ms: millis(times_us.value_at_quantile(0.5)),
            p99_ms: millis(times_us.value_at_quantile(0.99)),
            max_ms: millis(times_us.max()),
            errors: latest.errors,
        }
    }

    /// The sum of all.
    pub fn finish(self) -> Tally {
        let mut all = Tally::new(true);
        for shard in self.shards {
            all.merge(shard.into_inner().unwrap_or_else(PoisonError::into_inner));
        }
        all
    }
}

/// Of times in microseconds, to three digits.
pub fn new_histogram() -> Histogram<u64> {
    Histogram::new(3).expect("three digits are within its range")
}

pub fn record(times_us: &mut Histogram<u64>, time: Duration) {
    times_us
        .record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
        .expect("it grows with what is recorded");
}

/// What kind of failure it is, in few words.
fn error_kind(error: &AppendError) -> String {
    let disposition = match error.disposition() {
        Disposition::NotApplied => "not applied",
        Disposition::Unknown => "unknown",
    };
    let cause = match error.cause() {
        Cause::Refused(refusal) if refusal.reason.as_str().is_empty() => refusal.code.to_string(),
        Cause::Refused(refusal) => refusal.reason.as_str().to_owned(),
        Cause::DeadlineExceeded { .. } => "time-out".to_owned(),
        other => other.to_string(),
    };
    format!("{disposition}: {cause}")
}

#[cfg(test)]
mod tests {
    use huntlog_client::proto;

    use super::*;

    fn appended(sequence: u64, attempts: u32) -> Result<Appended, AppendError> {
        let accepted = proto::Accepted {
            offset: sequence * 10,
            ..Default::default()
        };
        let outcome = proto::EventOutcome {
            outcome: Some(proto::event_outcome::Outcome::Accepted(accepted)),
        };
        Ok(Appended {
            sequence,
            duplicate: attempts > 1,
            log_index: 1,
            committed_at: None,
            outcomes: Some(vec![outcome]),
            attempts,
            sent_at: Instant::now(),
        })
    }

    #[test]
    fn what_began_before_the_window_counts_for_the_rate_and_not_for_the_times() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let window = Window {
            start: now - second,
            end: now + 9 * second,
        };
        let recorder = Recorder::new(window, true);
        recorder.answered(3, now - 5 * second, &appended(1, 1));
        recorder.answered(3, now - second / 2, &appended(2, 3));
        let failed = AppendError::Unknown {
            cause: Cause::DeadlineExceeded { last: None },
        };
        recorder.answered(4, now, &Err(failed));
        recorder.unsent(2);
        assert_eq!(recorder.events(), 2);
        let interval = recorder.end_interval(now - 2 * second);
        assert_eq!(interval.errors, 1);
        assert!((0.5..=1.0).contains(&interval.rate), "{interval:?}");
        assert!(
            (500.0..=interval.max_ms).contains(&interval.p50_ms),
            "{interval:?}"
        );
        assert_eq!(recorder.end_interval(now).rate, 0.0);
        let tally = recorder.finish();
        assert_eq!(tally.end_offset, 21);
        assert_eq!(tally.acknowledged, Some(vec![(3, 1), (3, 2)]));
        assert_eq!(
            tally.errors,
            BTreeMap::from([("unknown: time-out".to_owned(), 1)])
        );
        let mut figures = Figures::new();
        tally.add_to(&mut figures, &window);
        let expected = [
            ("rate", 0.2),
            ("errors", 1.0),
            ("unsent", 2.0),
            ("retries", 2.0),
            ("duplicates", 1.0),
            ("rejected", 0.0),
        ];
        for (name, value) in expected {
            assert_eq!(figures[name], value, "{name}");
        }
        assert!((500.0..5_000.0).contains(&figures["max"]), "{figures:?}");
    }
}
