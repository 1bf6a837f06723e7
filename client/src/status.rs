//! The wire's failures, in-band and as gRPC statuses, read as one [`Refusal`],
//! and what the client does about each.

use std::collections::BTreeMap;
use std::time::Duration;

use huntlog_proto::v1;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::error::{Disposition, Reason, Refusal};

/// What to do about a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handling {
    /// No leader can be reached there at the moment: try elsewhere, or later.
    Unavailable,
    /// There is no room: the same again later.
    Overloaded,
    /// The node had applied other sequences than the request supposed.
    Gap,
    /// A higher epoch has been opened.
    Fenced,
    /// The session is not known any more.
    SessionForgotten,
    /// A decision of the state machine that used up the sequence.
    Decided,
    /// The sequence carries other events already.
    Taken,
    /// It cannot succeed, and has used up nothing.
    Invalid,
    /// It failed in a way this release does not know; whether the sequence was
    /// used up has to be found out.
    Unsure,
}

/// What to do about `refusal`. Reasons decide where they are known, the code
/// otherwise.
#[must_use]
pub fn handling(refusal: &Refusal) -> Handling {
    match &refusal.reason {
        Reason::NoLeader
        | Reason::Draining
        | Reason::Starting
        | Reason::Deadline
        | Reason::LeadershipLost
        // Of the nodes given, others may belong to the right one.
        | Reason::WrongCluster
        | Reason::NodeFailed => Handling::Unavailable,
        Reason::Overloaded | Reason::SessionsFull => Handling::Overloaded,
        Reason::SequenceGap => Handling::Gap,
        Reason::Fenced => Handling::Fenced,
        Reason::SessionUnknown => Handling::SessionForgotten,
        Reason::RevisionMismatch => Handling::Decided,
        Reason::PayloadMismatch => Handling::Taken,
        Reason::Invalid
        | Reason::OutOfRange
        | Reason::NotFound
        | Reason::UnknownPartition
        | Reason::FeatureLevel => Handling::Invalid,
        // Asking again tells no more than that a change is in progress.
        Reason::ChangeUnfinished => Handling::Unsure,
        // A delay is only given where a retry can help.
        Reason::Other(_) => match refusal.code {
            Code::ResourceExhausted => Handling::Overloaded,
            _ if refusal.retry_after.is_some() => Handling::Unavailable,
            Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::Cancelled
            | Code::Internal
            | Code::Unknown => Handling::Unavailable,
            Code::InvalidArgument => Handling::Invalid,
            _ => Handling::Unsure,
        },
    }
}

/// Whether the same call may succeed later or elsewhere.
#[must_use]
pub fn is_transient(refusal: &Refusal) -> bool {
    matches!(
        handling(refusal),
        Handling::Unavailable | Handling::Overloaded
    )
}

/// Reads a failed call's status. A status without huntlog's details, such as
/// the transport's own, is of unknown disposition.
#[must_use]
pub fn refusal_of_status(status: &Status) -> Refusal {
    let details = status.get_error_details();
    let (reason, metadata) = details.error_info().map_or_else(
        || (Reason::Other(String::new()), BTreeMap::new()),
        |info| {
            let metadata: BTreeMap<_, _> = info
                .metadata
                .iter()
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            (Reason::parse(&info.reason), metadata)
        },
    );
    let disposition = match metadata.get("disposition").map(String::as_str) {
        Some("NOT_APPLIED") => Disposition::NotApplied,
        _ => Disposition::Unknown,
    };
    Refusal {
        code: status.code(),
        reason,
        message: describe(status),
        disposition,
        retry_after: details.retry_info().and_then(|info| info.retry_delay),
        metadata,
        violations: details.bad_request().map_or_else(Vec::new, |bad| {
            bad.field_violations
                .iter()
                .map(|fault| (fault.field.clone(), fault.description.clone()))
                .collect()
        }),
    }
}

/// Reads a failure answered in band. A disposition that is missing or unknown
/// to this release counts as unknown.
#[must_use]
pub fn refusal_of_failure(failure: v1::Failure) -> Refusal {
    let disposition = match failure.disposition() {
        v1::Disposition::NotApplied => Disposition::NotApplied,
        v1::Disposition::Unknown | v1::Disposition::Unspecified => Disposition::Unknown,
    };
    Refusal {
        code: Code::from_i32(failure.code),
        reason: Reason::parse(&failure.reason),
        message: failure.message,
        disposition,
        retry_after: failure
            .retry_after
            .and_then(|delay| Duration::try_from(delay).ok()),
        metadata: failure.metadata.into_iter().collect(),
        violations: failure
            .field_violations
            .into_iter()
            .map(|fault| (fault.field, fault.description))
            .collect(),
    }
}

/// A refusal of our own making, for what never reached a node's service.
pub(crate) fn transport_refusal(message: impl Into<String>) -> Refusal {
    Refusal {
        code: Code::Unavailable,
        reason: Reason::Other(String::new()),
        message: message.into(),
        disposition: Disposition::Unknown,
        retry_after: None,
        metadata: BTreeMap::new(),
        violations: Vec::new(),
    }
}

/// tonic's transport errors say "transport error" and keep the cause to their
/// sources.
fn describe(status: &Status) -> String {
    let mut words = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        let text = error.to_string();
        if !words.contains(&text) {
            words = format!("{words}: {text}");
        }
        source = error.source();
    }
    words
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn details_of_a_status_are_read() {
        let mut details = ErrorDetails::new();
        details
            .set_error_info(
                "SEQUENCE_GAP",
                "huntlog",
                HashMap::from([
                    ("disposition".to_owned(), "NOT_APPLIED".to_owned()),
                    ("expected".to_owned(), "7".to_owned()),
                ]),
            )
            .set_retry_info(Some(Duration::from_millis(20)));
        let status = Status::with_error_details(Code::FailedPrecondition, "gap", details);
        let refusal = refusal_of_status(&status);
        assert_eq!(refusal.reason, Reason::SequenceGap);
        assert_eq!(refusal.disposition, Disposition::NotApplied);
        assert_eq!(refusal.number("expected"), Some(7));
        assert_eq!(refusal.retry_after, Some(Duration::from_millis(20)));
        assert_eq!(handling(&refusal), Handling::Gap);
    }

    /// I10: what a node does not vouch for is unknown.
    #[test]
    fn a_bare_status_is_unknown_and_transient() {
        let refusal = refusal_of_status(&Status::unavailable("connection reset"));
        assert_eq!(refusal.disposition, Disposition::Unknown);
        assert_eq!(handling(&refusal), Handling::Unavailable);
        assert!(is_transient(&refusal));
    }

    #[test]
    fn an_unspecified_disposition_is_unknown() {
        let refusal = refusal_of_failure(v1::Failure {
            code: Code::Unavailable as i32,
            reason: "NO_LEADER".to_owned(),
            ..Default::default()
        });
        assert_eq!(refusal.disposition, Disposition::Unknown);
    }

    #[test]
    fn every_reason_has_one_name() {
        for (reason, name) in [
            (Reason::NoLeader, "NO_LEADER"),
            (Reason::UnknownPartition, "UNKNOWN_PARTITION"),
            (Reason::Other("LATER".to_owned()), "LATER"),
        ] {
            assert_eq!(Reason::parse(name), reason);
            assert_eq!(reason.as_str(), name);
        }
    }
}
