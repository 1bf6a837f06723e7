//! How a run went over time, from its history.

use std::collections::HashMap;

use serde::Serialize;

use crate::history::{Event, History, Kind, Op, Phase, Process};

/// How long after a fault its effects still count.
const AFTERMATH_NS: u64 = 5_000_000_000;
const SECOND_NS: u64 = 1_000_000_000;
const NS_PER_MS: u64 = 1_000_000;

/// How long writes took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Latency {
    /// Half of them at most this long.
    pub p50_ms: f64,
    /// All but a hundredth at most this long.
    pub p99_ms: f64,
    /// The slowest.
    pub max_ms: f64,
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Window {
    /// What kind.
    pub fault: String,
    /// Whom it hit.
    pub nodes: Vec<u64>,
    /// When it began.
    pub start_s: f64,
    /// When it was healed; the end of the history if that is not in it.
    pub stop_s: f64,
    /// The longest time without an acknowledged write from its beginning until a
    /// while after its end.
    pub silence_ms: u64,
    /// From its beginning until a write that began after that is acknowledged;
    /// none if none was.
    pub recovery_ms: Option<u64>,
    /// From its end until a write is acknowledged.
    pub healing_ms: Option<u64>,
}

/// How long something took, over all faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Spread {
    /// Half of them at most this long.
    pub median_ms: u64,
    /// The longest.
    pub max_ms: u64,
    /// Of so many faults it was not seen to its end.
    pub never: usize,
}

impl Spread {
    /// None if it was never seen to its end.
    pub(super) fn of(times_ms: impl Iterator<Item = Option<u64>>) -> Option<Self> {
        let all: Vec<Option<u64>> = times_ms.collect();
        let mut seen: Vec<u64> = all.iter().copied().flatten().collect();
        seen.sort_unstable();
        Some(Self {
            median_ms: *seen.get(seen.len() / 2)?,
            max_ms: *seen.last()?,
            never: all.len() - seen.len(),
        })
    }
}

/// One second.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Second {
    /// Writes acknowledged.
    pub(super) ok: u64,
    /// Operations of unknown fate.
    pub(super) unknown: u64,
    /// Of the writes acknowledged: how long they took, sorted.
    pub(super) latencies_ms: Vec<f64>,
}

/// The value below which `percent` of the sorted values are.
pub(super) fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let index = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(index).copied().unwrap_or_default()
}

fn is_write(op: &Op) -> bool {
    matches!(op, Op::Append(_) | Op::Claim(_))
}

/// Each acknowledged write: when, and how long it took.
fn acknowledged(history: &History) -> Vec<(u64, u64)> {
    let mut begun: HashMap<Process, u64> = HashMap::new();
    let mut all = Vec::new();
    for event in history.events().iter().filter(|event| is_write(&event.op)) {
        match event.kind {
            Kind::Invoke => drop(begun.insert(event.process, event.time_ns)),
            Kind::Ok => {
                let since = begun.remove(&event.process).unwrap_or(event.time_ns);
                all.push((event.time_ns, event.time_ns - since));
            }
            Kind::Fail | Kind::Info => {}
        }
    }
    all
}

#[expect(clippy::cast_precision_loss, reason = "a run is shorter than 2^52 ns")]
fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

pub(super) fn latency(history: &History) -> Latency {
    let mut all: Vec<f64> = acknowledged(history)
        .iter()
        .map(|(_, took)| ms(*took))
        .collect();
    all.sort_by(f64::total_cmp);
    Latency {
        p50_ms: percentile(&all, 50),
        p99_ms: percentile(&all, 99),
        max_ms: all.last().copied().unwrap_or_default(),
    }
}

pub(super) fn seconds(history: &History) -> Vec<Second> {
    let last = history.events().last().map_or(0, |event| event.time_ns);
    let second = |ns: u64| usize::try_from(ns / SECOND_NS).expect("a run is not that long");
    let mut seconds = vec![Second::default(); second(last) + 1];
    for (time, took) in acknowledged(history) {
        let second = &mut seconds[second(time)];
        second.ok += 1;
        second.latencies_ms.push(ms(took));
    }
    let unknown =
        |event: &&Event| event.kind == Kind::Info && matches!(event.process, Process::Client(_));
    for event in history.events().iter().filter(unknown) {
        seconds[second(event.time_ns)].unknown += 1;
    }
    for second in &mut seconds {
        second.latencies_ms.sort_by(f64::total_cmp);
    }
    seconds
}

pub(super) fn windows(history: &History) -> Vec<Window> {
    let writes = acknowledged(history);
    let oks: Vec<u64> = writes.iter().map(|(time, _)| *time).collect();
    let last = |events: &mut dyn Iterator<Item = &Event>| events.last().map_or(0, |e| e.time_ns);
    let end = last(&mut history.events().iter());
    // Nobody writes while everything is read in the end; that is no silence.
    let last_write = last(&mut history.events().iter().filter(|event| is_write(&event.op)));
    let mut windows = Vec::new();
    for (position, event) in history.events().iter().enumerate() {
        let Op::Fault(fault) = &event.op else {
            continue;
        };
        if fault.phase != Phase::Start {
            continue;
        }
        let start = event.time_ns;
        let stop = stop(&history.events()[position + 1..], &fault.name);
        let until = (stop.unwrap_or(end) + AFTERMATH_NS).min(last_write);
        let recovered = writes.iter().find(|(time, took)| time - took >= start);
        let healed = stop.and_then(|stop| {
            let ok = oks.get(oks.partition_point(|ok| *ok < stop))?;
            Some((ok - stop) / NS_PER_MS)
        });
        windows.push(Window {
            fault: fault.name.clone(),
            nodes: fault.nodes.clone(),
            start_s: ms(start) / 1e3,
            stop_s: ms(stop.unwrap_or(end)) / 1e3,
            silence_ms: silence(&oks, start, until) / NS_PER_MS,
            recovery_ms: recovered.map(|(time, _)| (time - start) / NS_PER_MS),
            healing_ms: healed,
        });
    }
    windows
}

/// When the fault `name` that has just begun was healed: before another of that
/// name begins.
fn stop(later: &[Event], name: &str) -> Option<u64> {
    let of_it = |event: &&Event| matches!(&event.op, Op::Fault(fault) if fault.name == name);
    let next = later.iter().find(of_it)?;
    let is_stop = matches!(&next.op, Op::Fault(fault) if fault.phase == Phase::Stop);
    is_stop.then_some(next.time_ns)
}

/// The longest time from one write to the next, of those that reach into the time
/// between; at its end, writes are waited for no longer.
fn silence(oks: &[u64], start: u64, end: u64) -> u64 {
    let before = oks.partition_point(|ok| *ok < start);
    let mut since = before.checked_sub(1).map_or(start, |index| oks[index]);
    let mut longest = 0;
    for ok in &oks[before..] {
        if since >= end {
            return longest;
        }
        longest = longest.max(ok - since);
        since = *ok;
    }
    longest.max(end.saturating_sub(since))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Append, Fault, Read, Recorder};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// What is recorded, by its milliseconds.
    enum Entry {
        /// A write that takes 10 ms.
        Write,
        /// A write that began long ago.
        Late,
        /// A write that is never answered.
        Lost,
        Read,
        Start(&'static str),
        Stop(&'static str),
    }

    fn history(entries: &[(u64, Entry)]) -> History {
        let now = Arc::new(AtomicU64::new(0));
        let clock = Arc::clone(&now);
        let recorder = Recorder::new(move || clock.load(Ordering::Relaxed));
        let at = |ms: u64| now.store(ms * NS_PER_MS, Ordering::Relaxed);
        let append = || {
            Op::Append(Append {
                offset: Some(0),
                ..Append::default()
            })
        };
        let fault = |name: &str, phase| {
            recorder.fault(Fault {
                name: name.to_owned(),
                phase,
                nodes: vec![1],
                detail: None,
            });
        };
        let mut patient = recorder.client();
        let has_late = entries
            .iter()
            .any(|(_, entry)| matches!(entry, Entry::Late));
        let mut late = has_late.then(|| patient.invoke(append()));
        let mut client = recorder.client();
        for (time, entry) in entries {
            at(*time);
            match entry {
                Entry::Start(name) => fault(name, Phase::Start),
                Entry::Stop(name) => fault(name, Phase::Stop),
                Entry::Late => late.take().expect("one").ok(append()),
                Entry::Lost => client.invoke(append()).info("no answer"),
                Entry::Read => client.invoke(Op::Read(Read::default())).info("no answer"),
                Entry::Write => {
                    at(time - 10);
                    let open = client.invoke(append());
                    at(*time);
                    open.ok(append());
                }
            }
        }
        recorder.history()
    }

    fn writes(at_ms: impl IntoIterator<Item = u64>) -> Vec<(u64, Entry)> {
        at_ms.into_iter().map(|at| (at, Entry::Write)).collect()
    }

    #[test]
    fn a_fault_is_measured_by_the_longest_silence_around_it() {
        let mut entries = writes([100, 900, 1_000]);
        entries.extend([(1_050, Entry::Start("kill")), (1_500, Entry::Stop("kill"))]);
        entries.extend(writes([1_700, 1_800, 9_000, 12_000]));
        let history = history(&entries);
        let windows = windows(&history);
        assert_eq!(windows.len(), 1);
        assert_eq!(windows[0].silence_ms, 7_200);
        assert!((windows[0].stop_s - 1.5).abs() < 1e-9);
        let latency = latency(&history);
        assert!((latency.p50_ms - 10.0).abs() < 1e-9, "{latency:?}");
        let seconds = seconds(&history);
        let ok: Vec<u64> = seconds.iter().map(|second| second.ok).collect();
        assert_eq!(ok, [2, 3, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1]);
    }

    #[test]
    fn a_cluster_that_never_writes_again_is_silent_until_the_clients_give_up() {
        let mut entries = writes([900]);
        entries.extend([(1_000, Entry::Start("kill")), (1_500, Entry::Stop("kill"))]);
        entries.extend([(4_000, Entry::Lost), (9_000, Entry::Read)]);
        let window = &windows(&history(&entries))[0];
        assert_eq!(window.silence_ms, 3_100);
        assert_eq!((window.recovery_ms, window.healing_ms), (None, None));
    }

    #[test]
    fn one_that_is_not_healed_lasts_until_the_end() {
        let mut entries = writes([900]);
        entries.push((1_000, Entry::Start("kill")));
        entries.extend(writes([1_200]));
        entries.extend([(2_000, Entry::Start("kill")), (2_500, Entry::Stop("kill"))]);
        entries.extend(writes([3_000]));
        let windows = windows(&history(&entries));
        let stops: Vec<f64> = windows.iter().map(|window| window.stop_s).collect();
        assert_eq!(stops, [3.0, 2.5]);
        assert_eq!(windows[0].healing_ms, None);
    }

    #[test]
    fn recovery_is_told_by_a_write_that_began_in_the_fault() {
        let entries = [
            (1_000, Entry::Start("pause")),
            // The leader had it already.
            (1_002, Entry::Late),
            (1_400, Entry::Write),
            (2_000, Entry::Stop("pause")),
            (2_030, Entry::Write),
        ];
        let windows = windows(&history(&entries));
        assert_eq!(windows[0].recovery_ms, Some(400));
        assert_eq!(windows[0].healing_ms, Some(30));
        let times = [Some(30), None, Some(10), Some(20)];
        let spread = Spread::of(times.into_iter()).expect("some");
        assert_eq!((spread.median_ms, spread.max_ms, spread.never), (20, 30, 1));
        assert_eq!(Spread::of([None].into_iter()), None);
    }
}
