//! How a command ends, and the exit code that says so.

use std::io;
use std::process::ExitCode;

use huntlog_client::{AppendError, CallError, Cause, ConfigError, Disposition, Reason};

/// The exit codes, as `--help` documents them.
pub const EXIT_CODES: &str = "\
Set HUNTLOG_LOG, such as huntlog_client=debug, to see on standard error what is
retried and why.

Exit codes:
  0  done
  1  another error
  2  wrong usage or input; nothing was sent
  3  refused by the cluster, or a check failed
  4  the cluster is unavailable, or it is unknown whether a write was applied";

/// Why a command did not do what it was to do.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Wrong arguments or input; nothing was sent.
    #[error("{0}")]
    Usage(String),
    /// The cluster refused, or a check found a fault.
    #[error("{0}")]
    Refused(String),
    /// A hunt's revision was not the one expected.
    #[error("{0}")]
    Conflict(String),
    /// No node answered, or not whether a write was applied.
    #[error("{0}")]
    Unavailable(String),
    /// A local file or pipe.
    #[error("{context}: {source}")]
    Io {
        /// What was being done.
        context: String,
        /// What the system said.
        source: io::Error,
    },
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl Failure {
    /// The exit code it is reported with.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Usage(_) => 2,
            Self::Refused(_) | Self::Conflict(_) => 3,
            Self::Unavailable(_) => 4,
            // A reader of ours that has seen enough, such as `head`.
            Self::Io { source, .. } if source.kind() == io::ErrorKind::BrokenPipe => 0,
            Self::Io { .. } | Self::Other(_) => 1,
        })
    }

    /// Whether there is nobody left to tell.
    pub fn is_silent(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
    }

    /// A failing file operation.
    pub fn io(context: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let context = context.into();
        move |source| Self::Io { context, source }
    }

    /// Input that can not be read: nothing was sent.
    pub fn input(name: impl std::fmt::Display) -> impl FnOnce(io::Error) -> Self {
        let context = format!("reading {name}");
        move |source| Self::Usage(format!("{context}: {source}; nothing was sent"))
    }

    /// The same with what was being done before it.
    pub fn during(self, context: &str) -> Self {
        match self {
            Self::Usage(why) => Self::Usage(format!("{context}: {why}")),
            Self::Refused(why) => Self::Refused(format!("{context}: {why}")),
            Self::Conflict(why) => Self::Conflict(format!("{context}: {why}")),
            Self::Unavailable(why) => Self::Unavailable(format!("{context}: {why}")),
            Self::Other(why) => Self::Other(format!("{context}: {why}")),
            Self::Io {
                context: inner,
                source,
            } => Self::Io {
                context: format!("{context}: {inner}"),
                source,
            },
        }
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        let words = error.to_string();
        match error {
            CallError::Refused(_) => Self::Refused(words),
            CallError::Unavailable { .. } => Self::Unavailable(words),
            CallError::Protocol { .. } | CallError::AlreadyOpen(_) | CallError::Closed => {
                Self::Other(words)
            }
        }
    }
}

impl From<AppendError> for Failure {
    fn from(error: AppendError) -> Self {
        let words = error.to_string();
        match (error.disposition(), error.cause()) {
            (Disposition::Unknown, _) | (_, Cause::DeadlineExceeded { .. }) => {
                Self::Unavailable(words)
            }
            (_, Cause::Refused(refusal)) if refusal.reason == Reason::RevisionMismatch => {
                Self::Conflict(words)
            }
            (_, Cause::Invalid(_)) => Self::Usage(words),
            (_, Cause::Closed) => Self::Other(words),
            _ => Self::Refused(words),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Usage(error.to_string())
    }
}
