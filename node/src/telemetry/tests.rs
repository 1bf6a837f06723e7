//! The exposition as a scraper sees it, and the log lines as a collector does.

use std::{
    collections::BTreeSet,
    io::{self, Write},
    sync::{Arc, Mutex},
    time::Duration,
};

use tracing_subscriber::EnvFilter;

use super::{logs, logs::Style, *};

fn metrics() -> Metrics {
    Metrics::new("0.1.0", 1, "harbour")
}

fn scrape(metrics: &Metrics) -> prometheus_parse::Scrape {
    let text = metrics.encode();
    // The parser reads the older text format, which has no end marker.
    let body = text.strip_suffix("# EOF\n").expect("an end marker");
    let lines = body.lines().map(|line| Ok::<_, io::Error>(line.to_owned()));
    prometheus_parse::Scrape::parse(lines).expect("parses")
}

fn value(scrape: &prometheus_parse::Scrape, name: &str, labels: &[(&str, &str)]) -> f64 {
    let sample = scrape.samples.iter().find(|sample| {
        sample.metric == name && labels.iter().all(|(k, v)| sample.labels.get(k) == Some(v))
    });
    match sample.map(|sample| &sample.value) {
        Some(
            prometheus_parse::Value::Counter(value)
            | prometheus_parse::Value::Gauge(value)
            | prometheus_parse::Value::Untyped(value),
        ) => *value,
        other => panic!("{name} {labels:?} is {other:?}"),
    }
}

#[test]
fn what_is_observed_is_exposed() {
    let metrics = metrics();
    let partition = metrics.partition(7);
    partition.proposal(ProposalResult::Duplicate).inc_by(3);
    partition.forward(ForwardResult::Lost).inc();
    partition.snapshot(SnapshotKind::Installed).inc();
    partition.proposer.entry_events.observe(4096);
    partition.replica.applied_log_index.set(u64::MAX);
    partition.set_matched_log_index(2, 41);
    metrics.node.clock_skew_seconds.set(-0.25);
    metrics
        .storage
        .sync_seconds
        .observe(Duration::from_micros(200));
    let append = Method::from_path("/huntlog.v1.EventService/Append");
    metrics
        .rpc
        .observe(Side::Server, append, 8, Duration::from_millis(1));

    let scrape = scrape(&metrics);
    let of = [("partition", "7")];
    let read = |name, labels: &[_]| value(&scrape, name, labels);
    assert_eq!(
        read("huntlog_proposals_total", &[of[0], ("result", "duplicate")]),
        3.0
    );
    assert_eq!(
        read("huntlog_proposals_total", &[of[0], ("result", "unknown")]),
        0.0
    );
    assert_eq!(
        read(
            "huntlog_forwarded_requests_total",
            &[of[0], ("result", "lost")]
        ),
        1.0
    );
    assert_eq!(
        read("huntlog_snapshots_total", &[of[0], ("result", "installed")]),
        1.0
    );
    assert_eq!(read("huntlog_entry_events_sum", &of), 4096.0);
    assert_eq!(read("huntlog_entry_events_count", &of), 1.0);
    assert_eq!(read("huntlog_applied_log_index", &of), u64::MAX as f64);
    assert_eq!(
        read("huntlog_peer_matched_log_index", &[of[0], ("peer", "2")]),
        41.0
    );
    assert_eq!(read("huntlog_clock_skew_seconds", &[]), -0.25);
    assert_eq!(read("huntlog_storage_sync_seconds_sum", &[]), 200e-6);
    let rpc = [
        ("side", "server"),
        ("method", "huntlog.v1.EventService/Append"),
        ("code", "RESOURCE_EXHAUSTED"),
    ];
    assert_eq!(read("huntlog_rpc_total", &rpc), 1.0);
    assert_eq!(
        read(
            "huntlog_build_info",
            &[("node_id", "1"), ("cluster", "harbour")]
        ),
        1.0
    );
    assert!(read("process_resident_memory_bytes", &[]) > 0.0);
    assert!(read("process_open_fds", &[]) > 0.0);
}

#[test]
fn a_peer_that_is_no_longer_followed_disappears() {
    let metrics = metrics();
    let partition = metrics.partition(0);
    partition.set_matched_log_index(2, 41);
    assert!(metrics.encode().contains("peer=\"2\""));
    partition.clear_matched_log_index(2);
    assert!(!metrics.encode().contains("peer=\"2\""));
}

#[test]
fn handles_of_one_partition_are_the_same_metric() {
    let metrics = metrics();
    metrics.partition(0).replica.term.set(5);
    assert_eq!(metrics.partition(0).replica.term.get(), 5);
    assert_eq!(metrics.partition(1).replica.term.get(), 0);
}

/// Names follow Prometheus's rules, and no family is declared twice (a scraper
/// refuses the whole page then).
#[test]
fn families_are_declared_once_and_named_by_the_rules() {
    let metrics = metrics();
    metrics.partition(0);
    metrics.partition(1);
    let text = metrics.encode();
    let mut seen = BTreeSet::new();
    for line in text.lines() {
        let Some(rest) = line.strip_prefix("# TYPE ") else {
            continue;
        };
        let (name, kind) = rest.split_once(' ').expect("a name and a type");
        assert!(seen.insert(name), "{name} twice");
        assert!(
            name.starts_with("huntlog_") || name.starts_with("process_"),
            "{name}"
        );
        assert!(
            name.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
            "{name}"
        );
        assert!(!name.ends_with("_total"), "{name}: the encoder adds it");
        assert_ne!(kind, "unknown", "{name}");
        let help = format!("# HELP {name} ");
        let help = text
            .lines()
            .find_map(|line| line.strip_prefix(help.as_str()));
        let help = help.unwrap_or_else(|| panic!("{name} has no help"));
        assert!(
            help.len() > 8 && help.ends_with('.') && !help.ends_with(".."),
            "{help}"
        );
    }
    assert!(seen.len() > 40, "{seen:?}");
}

/// Lines written by a subscriber.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("not poisoned").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn logged(style: Style, metrics: &NodeMetrics) -> String {
    let lines = Lines::default();
    let writer = lines.clone();
    let filter = EnvFilter::new("info");
    let subscriber = logs::log_subscriber(filter, style, metrics, move || writer.clone());
    tracing::subscriber::with_default(subscriber, || {
        tracing::info!(partition = 3, "elected");
        tracing::warn!("disk nearly full");
        tracing::error!("disk full");
        tracing::debug!("not shown");
    });
    let bytes = lines.0.lock().expect("not poisoned").clone();
    String::from_utf8(bytes).expect("UTF-8")
}

#[test]
fn json_lines_are_objects_with_their_fields() {
    let metrics = metrics();
    let text = logged(Style::Json, &metrics.node);
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("an object"))
        .collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0]["message"], "elected");
    assert_eq!(lines[0]["partition"], 3);
    assert_eq!(lines[0]["level"], "INFO");
    assert_eq!(metrics.node.log_warnings.get(), 1);
    assert_eq!(metrics.node.log_errors.get(), 1);
}

#[test]
fn human_lines_have_no_colours_unless_asked() {
    let text = logged(Style::Human { ansi: false }, &metrics().node);
    assert!(text.contains("elected partition=3"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text}");
    let text = logged(Style::Human { ansi: true }, &metrics().node);
    assert!(text.contains('\u{1b}'), "{text}");
}

#[test]
fn rust_log_takes_the_place_of_the_level() {
    let level = "error".parse().expect("a level");
    let filter = |rust_log: Option<&str>| {
        logs::filter(rust_log.map(str::to_owned), &level).map(|filter| filter.to_string())
    };
    assert_eq!(filter(None).expect("the level"), "error");
    assert_eq!(filter(Some("")).expect("the level"), "error");
    assert_eq!(filter(Some("debug")).expect("a filter"), "debug");
    let error = filter(Some("openraft=loud")).expect_err("no filter");
    assert!(error.to_string().contains("openraft=loud"), "{error}");
}

#[test]
fn lines_are_for_people_on_a_terminal_only() {
    use crate::config::LogFormat::{Auto, Human, Json};
    let human = |ansi| Style::Human { ansi };
    assert_eq!(Style::of(Auto, true, false), human(true));
    assert_eq!(Style::of(Auto, true, true), human(false));
    assert_eq!(Style::of(Auto, false, false), Style::Json);
    assert_eq!(Style::of(Human, false, false), human(false));
    assert_eq!(Style::of(Json, true, false), Style::Json);
}
