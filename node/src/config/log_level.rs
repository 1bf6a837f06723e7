//! Which events are logged.

use std::str::FromStr;

use tracing_subscriber::filter::{EnvFilter, ParseError};

/// A level for huntlog's own events, or a filter in `tracing`'s syntax.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLevel {
    directives: String,
}

/// Why a text is no [`LogLevel`].
#[derive(Debug, thiserror::Error)]
pub enum InvalidLogLevel {
    /// A bare word that is no level. `tracing` would take it for the name of a
    /// module and silence all others, which nobody means.
    #[error("{0} is no level")]
    NotALevel(String),
    /// What the filter's parser says.
    #[error(transparent)]
    Filter(#[from] ParseError),
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Libraries log their inner life at info; what of it concerns an operator is at
/// warn. openraft also warns of each attempt to reach a peer that is away; that
/// it is away this node says itself, once.
const LIBRARIES: &str = "warn,openraft=error";

impl LogLevel {
    /// The filter for the subscriber.
    pub fn filter(&self) -> EnvFilter {
        EnvFilter::builder()
            .parse(&self.directives)
            .expect("the directives were parsed when the level was")
    }
}

impl FromStr for LogLevel {
    type Err = InvalidLogLevel;

    fn from_str(text: &str) -> Result<Self, InvalidLogLevel> {
        let level_of = |word: &str| {
            LEVELS
                .into_iter()
                .find(|level| word.eq_ignore_ascii_case(level))
        };
        for directive in text.split(',').map(str::trim) {
            if !directive.contains(['=', '[']) && level_of(directive).is_none() {
                return Err(InvalidLogLevel::NotALevel(format!("{directive:?}")));
            }
        }
        let directives = match level_of(text) {
            Some(level @ ("info" | "debug" | "trace")) => {
                format!(
                    "{LIBRARIES},huntlog_node={level},huntlog_machine={level},huntlog_storage={level}"
                )
            }
            Some("warn") => LIBRARIES.to_owned(),
            Some(level) => level.to_owned(),
            None => text.to_owned(),
        };
        EnvFilter::builder().parse(&directives)?;
        Ok(Self { directives })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_for_our_own_events() {
        let level: LogLevel = "Debug".parse().expect("a level");
        assert_eq!(
            level.directives,
            "warn,openraft=error,huntlog_node=debug,huntlog_machine=debug,huntlog_storage=debug"
        );
        let filter: LogLevel = "info,openraft=debug".parse().expect("a filter");
        assert_eq!(filter.directives, "info,openraft=debug");
    }

    #[test]
    fn a_word_that_is_no_level_is_refused() {
        for text in ["infoo", "", "info,verbose", "openraft=loud"] {
            assert!(text.parse::<LogLevel>().is_err(), "{text}");
        }
    }
}
