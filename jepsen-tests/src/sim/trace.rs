//! What a run prints of itself: every log line of every node and client, what
//! clients asked and were answered, and the faults, with the world's time, in the
//! order of the simulation. Two runs of one seed have the same.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, SubscriberExt as _};

use super::random::mix;

thread_local! {
    static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    /// The host that runs: 0 is the world itself.
    static HOST: Cell<u64> = const { Cell::new(0) };
}

/// Says when, and on which host, what is traced next happens.
pub(super) fn set_place(now: Duration, host: u64) {
    NOW.set(now);
    HOST.set(host);
}

/// The trace of this process; clones are handles to the same one.
#[derive(Clone)]
pub(super) struct Trace(Arc<Mutex<State>>);

struct State {
    hash: u64,
    lines: u64,
    shown: bool,
    /// Lines at ERROR, and the hosts that have logged them, since they were taken.
    errors: Vec<(u64, String)>,
    panics: Vec<Panic>,
    /// How often each kind of line at INFO and above has come, by its text and by
    /// the host that it is of.
    kinds: BTreeMap<(String, u64), u64>,
}

/// What has panicked.
#[derive(Debug, Clone)]
pub(super) struct Panic {
    pub(super) host: u64,
    pub(super) text: String,
    /// The node has cut a part of its log off, which was not the next leader's.
    pub(super) has_cut_its_log: bool,
}

/// How the line begins that tells of that.
pub(super) const LOG_IS_CUT: &str = "cutting off entries of a leader";

impl Trace {
    /// Takes over this process's logging; prints each line if `shown`.
    pub(super) fn begin(shown: bool) -> Self {
        let trace = Self(Arc::new(Mutex::new(State {
            hash: 0xcbf2_9ce4_8422_2325,
            lines: 0,
            shown,
            errors: Vec::new(),
            panics: Vec::new(),
            kinds: BTreeMap::new(),
        })));
        let targets = Targets::new()
            .with_target("huntlog_node", Level::DEBUG)
            .with_target("huntlog_client", Level::DEBUG)
            .with_target("huntlog_storage", Level::DEBUG)
            .with_target("huntlog_machine", Level::DEBUG)
            .with_target("huntlog_jepsen", Level::DEBUG)
            .with_default(LevelFilter::OFF);
        let subscriber =
            tracing_subscriber::registry().with(Lines(trace.clone()).with_filter(targets));
        // A process simulates once.
        let _ = tracing::subscriber::set_global_default(subscriber);
        let panicking = trace.clone();
        std::panic::set_hook(Box::new(move |panic| {
            let text = format!("{panic}");
            panicking.line(&format!("PANIC {text}"));
            let host = HOST.get();
            let has_cut_its_log = panicking.seen_of(LOG_IS_CUT, |of| of == host) > 0;
            panicking.state().panics.push(Panic {
                host,
                text,
                has_cut_its_log,
            });
        }));
        trace
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line.
    pub(super) fn line(&self, text: &str) {
        let mut state = self.state();
        let now = NOW.get();
        let line = format!("{:>11.6} {:>3} {text}\n", now.as_secs_f64(), HOST.get());
        // FNV-1a over words: it tells two traces apart, no more is asked of it.
        for chunk in line.as_bytes().chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            state.hash =
                (state.hash ^ u64::from_le_bytes(word)).wrapping_mul(0x0000_0100_0000_01b3);
            state.hash = mix(state.hash);
        }
        state.lines += 1;
        if state.shown {
            // Whoever reads it may have seen enough.
            let _ = std::io::stdout().write_all(line.as_bytes());
        }
    }

    /// A hash of all lines, and their number.
    pub(super) fn digest(&self) -> (u64, u64) {
        let state = self.state();
        (state.hash, state.lines)
    }

    /// What hosts have logged as errors since they were last taken.
    pub(super) fn take_errors(&self) -> Vec<(u64, String)> {
        std::mem::take(&mut self.state().errors)
    }

    /// How many lines have begun like this.
    pub(super) fn seen(&self, message: &str) -> u64 {
        self.seen_of(message, |_| true)
    }

    /// The same, of those hosts alone.
    fn seen_of(&self, message: &str, hosts: impl Fn(u64) -> bool) -> u64 {
        let state = self.state();
        let kinds = state.kinds.range((message.to_owned(), 0)..);
        kinds
            .take_while(|((kind, _), _)| kind.starts_with(message))
            .filter(|((_, host), _)| hosts(*host))
            .map(|(_, count)| count)
            .sum()
    }

    /// What has panicked.
    pub(super) fn panics(&self) -> Vec<Panic> {
        self.state().panics.clone()
    }
}

struct Lines(Trace);

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut text = format!("{:5} {}", metadata.level(), metadata.target());
        let mut words = Words {
            text: &mut text,
            message: String::new(),
        };
        event.record(&mut words);
        if *metadata.level() <= Level::INFO {
            let message = std::mem::take(&mut words.message);
            *self
                .0
                .state()
                .kinds
                .entry((message, HOST.get()))
                .or_default() += 1;
        }
        if *metadata.level() == Level::ERROR {
            self.0.state().errors.push((HOST.get(), text.clone()));
        }
        self.0.line(&text);
    }
}

struct Words<'a> {
    text: &'a mut String,
    message: String,
}

impl Visit for Words<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => {
                self.message = format!("{value:?}");
                write!(self.text, " {}", self.message)
            }
            name => write!(self.text, " {name}={value:?}"),
        };
    }
}
