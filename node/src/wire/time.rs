//! The contract's timestamps, the client's times and the log's.

use std::fmt;

use huntlog_machine::Timestamp;

use super::faults::Faults;

/// 0001-01-01T00:00:00Z, the first that `google.protobuf.Timestamp` allows.
const SECONDS_MIN: i64 = -62_135_596_800;
/// 9999-12-31T23:59:59Z, the last.
const SECONDS_MAX: i64 = 253_402_300_799;
const NANOS_PER_SECOND: u32 = 1_000_000_000;

/// A client's time; `None` and a fault when it is out of range.
pub(super) fn timestamp_from_proto(
    time: prost_types::Timestamp,
    path: impl fmt::Display,
    faults: &mut Faults,
) -> Option<Timestamp> {
    let nanos = u32::try_from(time.nanos)
        .ok()
        .filter(|nanos| *nanos < NANOS_PER_SECOND);
    if nanos.is_none() {
        faults.add(
            format_args!("{path}.nanos"),
            "nanoseconds must be 0 to 999,999,999",
        );
    }
    if !(SECONDS_MIN..=SECONDS_MAX).contains(&time.seconds) {
        faults.add(
            format_args!("{path}.seconds"),
            "the time must be between the years 1 and 9999",
        );
        return None;
    }
    Some(Timestamp {
        seconds: time.seconds,
        nanos: nanos?,
    })
}

/// A client's time.
pub(super) fn timestamp_to_proto(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: time.seconds,
        nanos: i32::try_from(time.nanos).expect("nanoseconds are below 10^9"),
    }
}

/// The log's time, in milliseconds since 1970.
pub fn timestamp_of_ms(time_ms: u64) -> prost_types::Timestamp {
    let nanos = u32::try_from(time_ms % 1_000).expect("below 1,000") * 1_000_000;
    prost_types::Timestamp {
        seconds: i64::try_from(time_ms / 1_000).expect("below 2^63 after the division"),
        nanos: i32::try_from(nanos).expect("nanoseconds are below 10^9"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(seconds: i64, nanos: i32) -> Result<Option<Timestamp>, Vec<String>> {
        let mut faults = Faults::default();
        let time = timestamp_from_proto(
            prost_types::Timestamp { seconds, nanos },
            "occurred_at",
            &mut faults,
        );
        faults
            .finish(time)
            .map_err(|error| error.0.into_iter().map(|fault| fault.path).collect())
    }

    #[test]
    fn times_survive_the_round_trip() {
        for (seconds, nanos) in [
            (0, 0),
            (SECONDS_MIN, 0),
            (SECONDS_MAX, 999_999_999),
            (-1, 500_000_000),
        ] {
            let time = read(seconds, nanos).expect("valid").expect("valid");
            assert_eq!(
                timestamp_to_proto(time),
                prost_types::Timestamp { seconds, nanos }
            );
        }
    }

    #[test]
    fn times_out_of_range_are_named() {
        assert_eq!(
            read(SECONDS_MIN - 1, 0),
            Err(vec!["occurred_at.seconds".to_owned()])
        );
        assert_eq!(
            read(SECONDS_MAX + 1, 0),
            Err(vec!["occurred_at.seconds".to_owned()])
        );
        assert_eq!(read(0, -1), Err(vec!["occurred_at.nanos".to_owned()]));
        assert_eq!(
            read(i64::MAX, 1_000_000_000),
            Err(vec![
                "occurred_at.nanos".to_owned(),
                "occurred_at.seconds".to_owned()
            ])
        );
    }

    #[test]
    fn the_logs_time_keeps_its_milliseconds() {
        assert_eq!(
            timestamp_of_ms(1_700_000_000_123),
            prost_types::Timestamp {
                seconds: 1_700_000_000,
                nanos: 123_000_000
            }
        );
        assert_eq!(timestamp_of_ms(u64::MAX).nanos, 615_000_000);
    }
}
