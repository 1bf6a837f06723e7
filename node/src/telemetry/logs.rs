//! Log lines, on standard error: human on a terminal, JSON otherwise.

use std::io::{self, IsTerminal as _};

use prometheus_client::metrics::counter::Counter;
use tracing::{Event, Level, Subscriber, level_filters::LevelFilter, subscriber};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::ParseError,
    fmt::{self, MakeWriter},
    layer::{Context, SubscriberExt as _},
};

use super::NodeMetrics;
use crate::config::{LogConfig, LogFormat, LogLevel};

/// Why logging cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// RUST_LOG is no filter.
    #[error(
        "RUST_LOG is \"{filter}\", which is no filter ({source}); correct it, or unset it to use log.level"
    )]
    InvalidFilter {
        /// As given.
        filter: String,
        /// What the filter's parser says.
        source: ParseError,
    },
    /// The process logs already.
    #[error("logging is set up already; it can be set up once in a process")]
    AlreadySet,
}

/// Sets up the process's logging. RUST_LOG, when set, takes the place of
/// `log.level`; NO_COLOR, when set, removes the colours. Warnings and errors are
/// counted in `metrics`.
///
/// # Errors
/// When RUST_LOG is no filter, and when it is called twice.
pub fn init_logs(config: &LogConfig, metrics: &NodeMetrics) -> Result<(), LogError> {
    let filter = filter(std::env::var(EnvFilter::DEFAULT_ENV).ok(), &config.level)?;
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let style = Style::of(config.format, io::stderr().is_terminal(), no_color);
    subscriber::set_global_default(log_subscriber(filter, style, metrics, io::stderr))
        .map_err(|_| LogError::AlreadySet)
}

pub(super) fn filter(rust_log: Option<String>, level: &LogLevel) -> Result<EnvFilter, LogError> {
    match rust_log {
        Some(filter) if !filter.is_empty() => EnvFilter::builder()
            .parse(&filter)
            .map_err(|source| LogError::InvalidFilter { filter, source }),
        _ => Ok(level.filter()),
    }
}

/// How lines look, once that is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Human { ansi: bool },
    Json,
}

impl Style {
    pub(super) fn of(format: LogFormat, terminal: bool, no_color: bool) -> Self {
        match format {
            LogFormat::Json => Self::Json,
            LogFormat::Auto if !terminal => Self::Json,
            LogFormat::Auto | LogFormat::Human => Self::Human {
                ansi: terminal && !no_color,
            },
        }
    }
}

pub(super) fn log_subscriber<W>(
    filter: EnvFilter,
    style: Style,
    metrics: &NodeMetrics,
    writer: W,
) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = fmt::layer().with_writer(writer);
    let lines = match style {
        Style::Human { ansi } => lines.with_ansi(ansi).boxed(),
        Style::Json => lines.json().flatten_event(true).boxed(),
    };
    let troubles = TroubleCounter {
        warnings: metrics.log_warnings.clone(),
        errors: metrics.log_errors.clone(),
    };
    tracing_subscriber::registry()
        .with(lines)
        .with(troubles.with_filter(LevelFilter::WARN))
        .with(filter)
}

/// Counts warnings and errors, so that they can be alerted on.
struct TroubleCounter {
    warnings: Counter,
    errors: Counter,
}

impl<S: Subscriber> Layer<S> for TroubleCounter {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        match *event.metadata().level() {
            Level::ERROR => self.errors.inc(),
            Level::WARN => self.warnings.inc(),
            _ => return,
        };
    }
}
