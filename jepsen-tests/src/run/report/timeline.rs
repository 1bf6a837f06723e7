//! How a run went over time, from its history.

use std::collections::HashMap;

use serde::Serialize;

use crate::history::{Event, History, Kind, Op, Phase, Process};

/// How long after a fault its effects still count.
const AFTERMATH_NS: u64 = 5_000_000_000;
const SECOND_NS: u64 = 1_000_000_000;

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
    /// When it was healed; the end of the history if it was not.
    pub stop_s: f64,
    /// The longest time without an acknowledged write from its beginning until a
    /// while after its end.
    pub silence_ms: u64,
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
    let oks: Vec<u64> = acknowledged(history)
        .iter()
        .map(|(time, _)| *time)
        .collect();
    let end = history.events().last().map_or(0, |event| event.time_ns);
    let mut windows = Vec::new();
    for (position, event) in history.events().iter().enumerate() {
        let Op::Fault(fault) = &event.op else {
            continue;
        };
        if fault.phase != Phase::Start {
            continue;
        }
        let healed = history.events()[position..].iter().find(|later| {
            matches!(&later.op, Op::Fault(stop)
                if stop.phase == Phase::Stop && stop.name == fault.name)
        });
        let stop = healed.map_or(event.time_ns, |healed| healed.time_ns);
        windows.push(Window {
            fault: fault.name.clone(),
            nodes: fault.nodes.clone(),
            start_s: ms(event.time_ns) / 1e3,
            stop_s: ms(stop) / 1e3,
            silence_ms: silence(&oks, event.time_ns, (stop + AFTERMATH_NS).min(end)) / 1_000_000,
        });
    }
    windows
}

/// The longest time from one write to the next, of those that reach into the
/// time between.
fn silence(oks: &[u64], start: u64, end: u64) -> u64 {
    let first = oks.partition_point(|ok| *ok < start).saturating_sub(1);
    let within = oks[first.min(oks.len())..].windows(2);
    within
        .take_while(|pair| pair[0] < end)
        .map(|pair| pair[1] - pair[0])
        .max()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Append, Fault, Recorder};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Writes that take 10 ms, at these milliseconds.
    fn history(at_ms: &[u64], fault_ms: (u64, u64)) -> History {
        let now = Arc::new(AtomicU64::new(0));
        let clock = Arc::clone(&now);
        let recorder = Recorder::new(move || clock.load(Ordering::Relaxed));
        let mut client = recorder.client();
        let fault = |at: u64, phase, due: &mut bool, time: u64| {
            if *due && time >= at {
                *due = false;
                now.store(at * 1_000_000, Ordering::Relaxed);
                recorder.fault(Fault {
                    name: "kill".to_owned(),
                    phase,
                    nodes: vec![1],
                    detail: None,
                });
            }
        };
        let (mut starts, mut stops) = (true, true);
        for time in at_ms {
            fault(fault_ms.0, Phase::Start, &mut starts, *time);
            fault(fault_ms.1, Phase::Stop, &mut stops, *time);
            now.store((time - 10) * 1_000_000, Ordering::Relaxed);
            let op = Op::Append(Append {
                offset: Some(0),
                ..Append::default()
            });
            let open = client.invoke(op.clone());
            now.store(time * 1_000_000, Ordering::Relaxed);
            open.ok(op);
        }
        recorder.history()
    }

    #[test]
    fn a_fault_is_measured_by_the_longest_silence_around_it() {
        let history = history(
            &[100, 900, 1_000, 1_700, 1_800, 9_000, 12_000],
            (1_050, 1_500),
        );
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
}
