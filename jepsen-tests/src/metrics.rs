//! What nodes measure, in Prometheus' text format.

/// The value of a gauge that there is one of, whatever its labels.
pub(crate) fn gauge(metrics: &str, name: &str) -> Option<f64> {
    let value = |line: &str| {
        let labels = line.strip_prefix(name)?;
        let rest = match labels.strip_prefix('{') {
            Some(labels) => labels.split_once('}')?.1,
            None => labels,
        };
        rest.strip_prefix(' ')?.parse().ok()
    };
    metrics.lines().find_map(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_is_told_from_others_that_begin_like_it() {
        let text = "# TYPE huntlog_clock_skew_seconds gauge\n\
                    huntlog_clock_skew_seconds -120.5\nhuntlog_clock_skew_seconds_max 3\n\
                    huntlog_sessions{partition=\"0\"} 7\n";
        assert_eq!(gauge(text, "huntlog_clock_skew_seconds"), Some(-120.5));
        assert_eq!(gauge(text, "huntlog_sessions"), Some(7.0));
        assert_eq!(gauge(text, "huntlog_clock"), None);
    }
}
