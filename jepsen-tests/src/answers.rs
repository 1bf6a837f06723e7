//! What is wrong with nodes' answers, other than what a history shows. A refusal
//! says why, of a write whether it was applied, and when to try again if that can
//! help (I10); a client that is not told can not go on.

use huntlog_client::{AppendError, CallError, Cause, Refusal};
use huntlog_proto::{CLUSTER_ID_HEADER, ERROR_DOMAIN};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// What is wrong with the status of a write, spoken without the library. What did
/// not come from a node promises nothing.
pub(crate) fn fault_of_status(status: &Status) -> Option<String> {
    // It is in every answer of a node, and in no failure of a connection to it.
    status.metadata().get(CLUSTER_ID_HEADER)?;
    let details = status.get_error_details();
    let info = details.error_info();
    let info = info.filter(|info| info.domain == ERROR_DOMAIN && !info.reason.is_empty());
    let disposition = info.and_then(|info| info.metadata.get("disposition"));
    // What the code calls worth another try has to say when.
    let transient = matches!(
        status.code(),
        Code::Unavailable | Code::ResourceExhausted | Code::Aborted | Code::DeadlineExceeded
    );
    let delay = details.retry_info().and_then(|retry| retry.retry_delay);
    let lacks = if info.is_none() {
        "does not say why"
    } else if !matches!(
        disposition.map(String::as_str),
        Some("NOT_APPLIED" | "UNKNOWN")
    ) {
        "does not say whether it was applied"
    } else if transient && delay.is_none() {
        "does not say when to try again"
    } else {
        return None;
    };
    Some(format!(
        "I10 honest errors: a refusal {lacks}: {:?}: {}",
        status.code(),
        status.message()
    ))
}

/// The same of an append by the library.
pub(crate) fn fault_of_append(error: &AppendError) -> Option<String> {
    match error.cause() {
        Cause::Refused(refusal) => fault_of_refusal(refusal),
        Cause::SequenceRegressed { .. } => Some(error.to_string()),
        _ => None,
    }
}

/// The same of any other call by the library.
pub(crate) fn fault_of_call(error: &CallError) -> Option<String> {
    match error {
        CallError::Refused(refusal) => fault_of_refusal(refusal),
        CallError::Protocol { .. } => Some(error.to_string()),
        _ => None,
    }
}

/// The library hands refusals on for which another attempt is no help; a failed
/// connection is none of them.
fn fault_of_refusal(refusal: &Refusal) -> Option<String> {
    let silent = refusal.reason.as_str().is_empty();
    silent.then(|| format!("I10 honest errors: a refusal does not say why: {refusal}"))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};
    use std::sync::Arc;
    use std::time::Duration;

    use huntlog_client::{Disposition, Reason};
    use tonic_types::ErrorDetails;

    use super::*;

    fn of_node(code: Code, details: ErrorDetails) -> Status {
        let mut status = Status::with_error_details(code, "no", details);
        let id = "abc".parse().expect("a value");
        status.metadata_mut().insert(CLUSTER_ID_HEADER, id);
        status
    }

    fn details(disposition: &[(&str, &str)], retry: Option<Duration>) -> ErrorDetails {
        let metadata: HashMap<String, String> = disposition
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let mut details = ErrorDetails::with_error_info("NO_LEADER", ERROR_DOMAIN, metadata);
        if retry.is_some() {
            details.set_retry_info(retry);
        }
        details
    }

    #[test]
    fn a_node_says_why_whether_and_when() {
        let applied = [("disposition", "NOT_APPLIED")];
        let delay = Some(Duration::from_millis(20));
        for (code, details, lacks) in [
            (Code::Internal, ErrorDetails::new(), "why"),
            (Code::Unavailable, details(&[], delay), "whether"),
            (
                Code::Unavailable,
                details(&[("disposition", "PERHAPS")], delay),
                "whether",
            ),
            (Code::Unavailable, details(&applied, None), "when"),
        ] {
            let fault = fault_of_status(&of_node(code, details)).expect("a fault");
            assert!(fault.contains(lacks), "{fault}");
        }
        for (code, details) in [
            (Code::Unavailable, details(&applied, delay)),
            (Code::FailedPrecondition, details(&applied, None)),
        ] {
            assert_eq!(fault_of_status(&of_node(code, details)), None);
        }
    }

    #[test]
    fn a_connection_promises_nothing() {
        assert_eq!(fault_of_status(&Status::unavailable("reset")), None);
    }

    #[test]
    fn the_library_hands_on_what_a_node_left_out() {
        let refused = |reason| {
            Arc::new(Refusal {
                code: Code::FailedPrecondition,
                reason,
                message: "no".to_owned(),
                disposition: Disposition::Unknown,
                retry_after: None,
                metadata: BTreeMap::new(),
                violations: Vec::new(),
            })
        };
        let silent = refused(Reason::Other(String::new()));
        assert!(fault_of_call(&CallError::Refused(Arc::clone(&silent))).is_some());
        let append = |refusal| AppendError::Unknown {
            cause: Cause::Refused(refusal),
        };
        assert!(fault_of_append(&append(silent)).is_some());
        assert_eq!(fault_of_append(&append(refused(Reason::Fenced))), None);
    }
}
