//! What a request's headers say: how long it may take, and whether another node
//! has forwarded it.

use std::time::Duration;

use tokio::time::Instant;
use tonic::metadata::{MetadataMap, MetadataValue};

use crate::limits;

/// Names the node that has forwarded a request. A node that gets such a request
/// and does not lead refuses it: one hop, no rounds.
pub(super) const FORWARDED_BY: &str = "huntlog-forwarded-by";
/// The uuid of the node that a forwarded request is meant for.
pub(super) const FORWARDED_TO: &str = "huntlog-to-node-uuid";
/// In the answer to a forwarded request: the client address of the leader.
pub(super) const LEADER: &str = "huntlog-leader";

const GRPC_TIMEOUT: &str = "grpc-timeout";

/// The transport drops a handler without a word when the caller's time is up;
/// answering before that brings the details to the caller.
const ANSWER_MARGIN_MAX: Duration = Duration::from_millis(50);
const ANSWER_MARGIN_MIN: Duration = Duration::from_millis(1);

/// A request under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    /// When it must be answered.
    pub deadline: Instant,
    /// The caller named the deadline itself.
    pub deadline_named: bool,
    /// Another node has forwarded it.
    pub forwarded: bool,
}

impl Call {
    /// As the headers say.
    pub(super) fn new(headers: &MetadataMap) -> Self {
        let named = headers
            .get(GRPC_TIMEOUT)
            .and_then(|value| parse_timeout(value.to_str().ok()?));
        let time = named.map_or(limits::REQUEST_DEADLINE_DEFAULT, |timeout| {
            timeout
                .saturating_sub(answer_margin(timeout))
                .min(limits::REQUEST_DEADLINE_MAX)
        });
        Self {
            deadline: Instant::now() + time,
            deadline_named: named.is_some(),
            forwarded: is_forwarded(headers),
        }
    }

    /// What is left until the deadline.
    pub(super) fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

/// Whether another node has forwarded the request.
pub(super) fn is_forwarded(headers: &MetadataMap) -> bool {
    headers.contains_key(FORWARDED_BY)
}

/// Adds a header to an answer. What is no header value is left out.
pub(super) fn add_header(headers: &mut MetadataMap, name: &'static str, value: &str) {
    if let Ok(value) = MetadataValue::try_from(value) {
        headers.insert(name, value);
    }
}

fn answer_margin(timeout: Duration) -> Duration {
    (timeout / 10).clamp(ANSWER_MARGIN_MIN, ANSWER_MARGIN_MAX)
}

/// gRPC over HTTP/2: at most eight digits and a unit.
fn parse_timeout(header: &str) -> Option<Duration> {
    let (digits, unit) = header.split_at_checked(header.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value * 60 * 60),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        for (header, expected) in [
            ("2H", Duration::from_secs(7_200)),
            ("3M", Duration::from_secs(180)),
            ("4S", Duration::from_secs(4)),
            ("250m", Duration::from_millis(250)),
            ("5u", Duration::from_micros(5)),
            ("99999999n", Duration::from_nanos(99_999_999)),
        ] {
            assert_eq!(parse_timeout(header), Some(expected), "{header}");
        }
        for header in ["", "S", "1", "123456789S", "-1S", "1.5S", "1x", "1S ", "ä"] {
            assert_eq!(parse_timeout(header), None, "{header}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_answer_comes_before_the_callers_time_is_up() {
        let call = |timeout: Option<&str>| {
            let mut headers = MetadataMap::new();
            if let Some(timeout) = timeout {
                headers.insert(GRPC_TIMEOUT, timeout.parse().expect("a header value"));
            }
            Call::new(&headers)
        };
        assert_eq!(call(None).time_left(), limits::REQUEST_DEADLINE_DEFAULT);
        assert!(!call(None).deadline_named);
        assert_eq!(call(Some("1S")).time_left(), Duration::from_millis(950));
        assert!(call(Some("1S")).deadline_named);
        assert_eq!(call(Some("100m")).time_left(), Duration::from_millis(90));
        assert_eq!(call(Some("2m")).time_left(), Duration::from_millis(1));
        assert_eq!(call(Some("1n")).time_left(), Duration::ZERO);
        assert_eq!(call(Some("9H")).time_left(), limits::REQUEST_DEADLINE_MAX);
    }

    #[test]
    fn a_forwarded_request_is_known_by_its_header() {
        let mut headers = MetadataMap::new();
        assert!(!is_forwarded(&headers));
        add_header(&mut headers, FORWARDED_BY, "2");
        assert!(is_forwarded(&headers));
        add_header(&mut headers, LEADER, "no\nheader");
        assert!(!headers.contains_key(LEADER));
    }
}
