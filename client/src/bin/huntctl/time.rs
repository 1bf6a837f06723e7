//! Times and durations in text.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::{SignedDuration, Timestamp};

/// Reads "30s", "250ms", "2m".
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration: SignedDuration = text.parse().map_err(|e: jiff::Error| e.to_string())?;
    let duration = Duration::try_from(duration).map_err(|_| "it is negative".to_owned())?;
    if duration.is_zero() {
        return Err("it is zero".to_owned());
    }
    Ok(duration)
}

/// Reads an RFC 3339 time, such as 2018-03-16T19:18:19Z.
pub fn parse_time(text: &str) -> Result<prost_types::Timestamp, jiff::Error> {
    let time: Timestamp = text.parse()?;
    // jiff's fractions of times before 1970 count backwards, protobuf's do not.
    let nanos = time.as_nanosecond();
    let second = nanos.div_euclid(1_000_000_000);
    Ok(prost_types::Timestamp {
        seconds: i64::try_from(second).expect("jiff's range is narrower"),
        nanos: i32::try_from(nanos.rem_euclid(1_000_000_000)).expect("below one billion"),
    })
}

/// In RFC 3339, or the bare number of a time outside its range.
pub fn format_time(time: &prost_types::Timestamp) -> String {
    Timestamp::new(time.seconds, time.nanos).map_or_else(
        |_| format!("{}s since 1970", time.seconds),
        |t| t.to_string(),
    )
}

/// The same where there may be none.
pub fn format_time_if(time: Option<&prost_types::Timestamp>) -> Option<String> {
    time.map(format_time)
}

/// Wall time in nanoseconds since 1970.
pub fn wall_ns() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_round_trip() {
        for text in ["2018-03-16T19:18:19Z", "1969-12-31T23:59:59.25Z"] {
            assert_eq!(format_time(&parse_time(text).expect(text)), text);
        }
        assert!(parse_time("2018-03-16 7pm").is_err());
        assert!(parse_time("2018-02-30T00:00:00Z").is_err());
        let offset = parse_time("2018-03-16T21:18:19+02:00").expect("valid");
        assert_eq!(format_time(&offset), "2018-03-16T19:18:19Z");
    }

    #[test]
    fn durations_are_positive() {
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_mins(2)));
        assert!(parse_duration("-1s").is_err());
        assert!(parse_duration("0s").is_err());
        assert!(parse_duration("soon").is_err());
    }
}
