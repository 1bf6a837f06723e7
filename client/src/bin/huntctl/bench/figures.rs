//! Every figure a benchmark gives: name, unit and meaning stand together.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

/// What a figure is measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    PerSecond,
    Millis,
    Seconds,
    Bytes,
    Count,
}

impl Unit {
    /// How a figure's name ends in JSON.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::PerSecond => "_per_second",
            Self::Millis => "_ms",
            Self::Seconds => "_seconds",
            Self::Bytes => "_bytes",
            Self::Count => "",
        }
    }

    /// A value for people.
    pub fn show(self, value: f64) -> String {
        match self {
            Self::PerSecond => format!("{value:.0} /s"),
            Self::Millis if value < 10.0 => format!("{value:.3} ms"),
            Self::Millis => format!("{value:.1} ms"),
            Self::Seconds => format!("{value:.2} s"),
            Self::Bytes if value >= 1e6 => format!("{:.1} MB", value / 1e6),
            Self::Bytes => format!("{value:.0} B"),
            Self::Count if value.fract() == 0.0 => format!("{value:.0}"),
            Self::Count => format!("{value:.1}"),
        }
    }
}

/// One kind of figure.
#[derive(Debug)]
pub struct Kind {
    pub name: &'static str,
    pub unit: Unit,
    pub what: &'static str,
}

macro_rules! kinds {
    ($( $name:literal $unit:ident $what:literal; )*) => {
        &[$( Kind { name: $name, unit: Unit::$unit, what: $what }, )*]
    };
}

/// Of appending.
pub const APPENDS: &[Kind] = kinds! {
    "rate" PerSecond "events acknowledged";
    "mean" Millis "until an append is acknowledged";
    "p50" Millis "the same: half of them";
    "p90" Millis "";
    "p99" Millis "";
    "p99.9" Millis "";
    "max" Millis "the longest";
    "errors" Count "appends that failed";
    "unsent" Count "requests that were due and could not be handed over";
    "rejected" Count "events refused by the rules of the hunt";
    "retries" Count "requests sent again";
    "duplicates" Count "requests answered as applied before";
};

/// Of subscribers.
pub const DELIVERIES: &[Kind] = kinds! {
    "delivered" PerSecond "events received by subscribers, all together";
    "delivery_mean" Millis "until a subscriber has an event";
    "delivery_p50" Millis "the same: half of them";
    "delivery_p90" Millis "";
    "delivery_p99" Millis "";
    "delivery_p99.9" Millis "";
    "delivery_max" Millis "the longest";
    "undelivered" Count "events acknowledged that a subscriber did not receive";
};

/// Of readers.
pub const READS: &[Kind] = kinds! {
    "read" PerSecond "events read, all readers together";
};

/// Of the nodes and the generator while they were under load.
pub const NODES: &[Kind] = kinds! {
    "cpu" Seconds "CPU of all nodes for a million events";
    "generator_cpu" Seconds "CPU of this process for a million events";
    "memory" Bytes "resident, of the node with most, at the end";
    "memory_before" Bytes "the same at the beginning";
    "memory_peak" Bytes "most ever resident, of the node with most";
    "generator_memory" Bytes "resident, of this process";
    "written" Bytes "written towards the disks of all nodes for an event";
    "kept" Bytes "log kept on all nodes for an event";
    "terms" Count "terms that began: elections held";
    "entries_per_sync" Count "log writes made durable by one fdatasync";
    "events_per_sync" Count "events made durable by one fdatasync";
    "events_per_entry" Count "events in an entry";
    "queue_mean" Millis "an entry's oldest append waited for its proposal";
    "queue_p99" Millis "";
    "sync_mean" Millis "one fdatasync of the log";
    "sync_p99" Millis "";
    "commit_mean" Millis "from an entry's proposal until a quorum has it on disk";
    "commit_p99" Millis "";
    "apply_mean" Millis "an entry is applied";
    "apply_p99" Millis "";
    "append_mean" Millis "from taking an append to its outcome, in the leader";
    "append_p99" Millis "";
};

/// Of killed leaders.
pub const FAILOVERS: &[Kind] = kinds! {
    "kills" Count "leaders killed";
    "recovery_median" Millis "from the kill to the next acknowledged append";
    "recovery_max" Millis "the longest";
    "acknowledged" Count "events acknowledged";
    "errors" Count "appends that failed";
    "retries" Count "requests sent again";
    "duplicates" Count "requests answered as applied before";
    "lost" Count "events acknowledged that a node does not have";
    "duplicated" Count "events that a node has twice or out of order";
};

/// Of restarted nodes.
pub const RESTARTS: &[Kind] = kinds! {
    "log" Bytes "log of one node";
    "filled" PerSecond "events appended to get there";
    "memory" Bytes "resident before the kill, of the node with most";
    "ready_median" Millis "from the start of a killed node until it is ready";
    "ready_max" Millis "the longest";
};

/// Of a disk.
pub const SYNCS: &[Kind] = kinds! {
    "rate" PerSecond "writes with an fdatasync, one after the other";
    "mean" Millis "one of them";
    "p50" Millis "the same: half of them";
    "p90" Millis "";
    "p99" Millis "";
    "p99.9" Millis "";
    "max" Millis "the longest";
    "stalls" Count "those that took 50 ms or more";
};

/// The figures of one run, or the medians of several, by name.
pub type Figures = BTreeMap<&'static str, f64>;

/// Of each figure the median, the least and the most of several runs.
pub fn summarise(runs: &[Figures]) -> BTreeMap<&'static str, [f64; 3]> {
    let mut values: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
    for (name, value) in runs.iter().flatten() {
        values.entry(name).or_default().push(*value);
    }
    values
        .into_iter()
        .map(|(name, mut values)| {
            values.sort_by(f64::total_cmp);
            let (least, most) = (values[0], values[values.len() - 1]);
            (name, [median(&values), least, most])
        })
        .collect()
}

/// Of sorted values, at least one.
pub fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    } else {
        sorted[middle]
    }
}

/// Adds the quantiles of times in microseconds under these names: mean, p50,
/// p90, p99, p99.9, max. Nothing when nothing was recorded.
pub fn add_latencies(figures: &mut Figures, names: [&'static str; 6], times_us: &Histogram<u64>) {
    if times_us.is_empty() {
        return;
    }
    let millis = |us: u64| us as f64 / 1e3;
    let values = [
        times_us.mean() / 1e3,
        millis(times_us.value_at_quantile(0.5)),
        millis(times_us.value_at_quantile(0.9)),
        millis(times_us.value_at_quantile(0.99)),
        millis(times_us.value_at_quantile(0.999)),
        millis(times_us.max()),
    ];
    figures.extend(names.into_iter().zip(values));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_figure_has_the_median_of_its_own_values() {
        let run = |rate, p99| Figures::from([("rate", rate), ("p99", p99)]);
        let runs = [run(3.0, 10.0), run(1.0, 30.0), run(2.0, 20.0)];
        let summary = summarise(&runs);
        assert_eq!(summary["rate"], [2.0, 1.0, 3.0]);
        assert_eq!(summary["p99"], [20.0, 10.0, 30.0]);
        assert_eq!(median(&[1.0, 2.0, 3.0, 5.0]), 2.5);
    }
}
