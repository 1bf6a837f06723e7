//! I11: every table and queue has a limit (DESIGN I11), and keeps to it.
//!
//! What is judged is what nodes measure of themselves. The tables of the state
//! machine are small enough in some worlds to be full; the other limits are for
//! more clients than a world has, and tests of their own fill those.

use huntlog_machine::Limits;
use huntlog_node::limits::{
    CLIENT_CONNECTIONS_MAX, IN_FLIGHT_APPENDS_MAX, IN_FLIGHT_BYTES_MAX, READS_MAX, SUBSCRIBERS_MAX,
};

use crate::metrics::gauge;

/// Whether a node serves. It is measured from the process's start on.
const READY: &str = "huntlog_ready";

/// Judges a node's metrics, in Prometheus' text format; whether there was
/// something to judge.
pub(in crate::sim) fn bounded(node: u64, metrics: &str, limits: &Limits) -> Result<bool, String> {
    let missing = |name| format!("I11: node {node} does not measure {name}");
    let ready = gauge(metrics, READY).ok_or_else(|| missing(READY))?;
    if ready < 1.0 {
        // It is starting, and measures not everything yet.
        return Ok(false);
    }
    let limits = [
        ("huntlog_sessions", u64::from(limits.max_sessions)),
        ("huntlog_hunts", u64::from(limits.hunts_max)),
        ("huntlog_in_flight_bytes", IN_FLIGHT_BYTES_MAX as u64),
        ("huntlog_client_connections", CLIENT_CONNECTIONS_MAX as u64),
        ("huntlog_reads", READS_MAX as u64),
        ("huntlog_subscribers", SUBSCRIBERS_MAX as u64),
        (
            "huntlog_proposer_queue_batches",
            IN_FLIGHT_APPENDS_MAX as u64,
        ),
    ];
    for (name, limit) in limits {
        let value = gauge(metrics, name).ok_or_else(|| missing(name))?;
        if value > limit as f64 {
            return Err(format!(
                "I11: {name} of node {node} is {value}, above its limit {limit}"
            ));
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = "# TYPE huntlog_sessions gauge
huntlog_ready 1
huntlog_sessions{partition=\"0\"} 7
huntlog_sessions_other 9999999
huntlog_hunts{partition=\"0\"} 1
huntlog_in_flight_bytes 0
huntlog_client_connections 3
huntlog_reads 0
huntlog_subscribers 2
huntlog_proposer_queue_batches{partition=\"0\"} 0
";

    fn limits(max_sessions: u32) -> Limits {
        Limits {
            max_sessions,
            ..Limits::default()
        }
    }

    #[test]
    fn a_table_above_its_limit_is_seen() {
        assert_eq!(bounded(1, METRICS, &limits(7)), Ok(true));
        assert!(bounded(1, METRICS, &limits(6)).is_err());
    }

    #[test]
    fn a_node_that_is_not_ready_is_not_judged_and_must_say_so() {
        let starting = METRICS.replace("huntlog_ready 1\n", "huntlog_ready 0\n");
        assert_eq!(bounded(1, &starting, &limits(6)), Ok(false));
        let renamed = METRICS.replace("huntlog_ready", "huntlog_is_ready");
        assert!(bounded(1, &renamed, &limits(7)).is_err());
    }

    #[test]
    fn what_is_not_measured_is_not_within_its_limit() {
        let without = METRICS.replace("huntlog_reads 0\n", "");
        assert!(bounded(1, &without, &limits(7)).is_err());
    }
}
