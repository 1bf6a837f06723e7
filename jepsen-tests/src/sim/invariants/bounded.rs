//! I11: every table and queue has a limit (DESIGN I11), and keeps to it.
//!
//! What is judged is what nodes measure of themselves. The tables of the state
//! machine are small enough in some worlds to be full; the other limits are for
//! more clients than a world has, and tests of their own fill those.

use huntlog_machine::Limits;
use huntlog_node::limits::{IN_FLIGHT_APPENDS_MAX, READS_MAX, SUBSCRIBERS_MAX};

/// Judges a node's metrics, in Prometheus' text format.
pub(in crate::sim) fn bounded(node: u64, metrics: &str, limits: &Limits) -> Result<(), String> {
    if measured(metrics, "huntlog_ready") != Some(1.0) {
        // It is starting, and measures not everything yet.
        return Ok(());
    }
    let limits = [
        ("huntlog_sessions", u64::from(limits.max_sessions)),
        ("huntlog_hunts", u64::from(limits.hunts_max)),
        ("huntlog_reads", READS_MAX as u64),
        ("huntlog_subscribers", SUBSCRIBERS_MAX as u64),
        (
            "huntlog_proposer_queue_batches",
            IN_FLIGHT_APPENDS_MAX as u64,
        ),
    ];
    for (name, limit) in limits {
        let value = measured(metrics, name)
            .ok_or_else(|| format!("I11: node {node} does not measure {name}"))?;
        if value > limit as f64 {
            return Err(format!(
                "I11: {name} of node {node} is {value}, above its limit {limit}"
            ));
        }
    }
    Ok(())
}

/// The value of a gauge that there is one of.
fn measured(metrics: &str, name: &str) -> Option<f64> {
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

    const METRICS: &str = "# TYPE huntlog_sessions gauge
huntlog_ready 1
huntlog_sessions{partition=\"0\"} 7
huntlog_sessions_other 9999999
huntlog_hunts{partition=\"0\"} 1
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
        assert_eq!(bounded(1, METRICS, &limits(7)), Ok(()));
        assert!(bounded(1, METRICS, &limits(6)).is_err());
    }

    #[test]
    fn what_is_not_measured_is_not_within_its_limit() {
        let without = METRICS.replace("huntlog_reads 0\n", "");
        assert!(bounded(1, &without, &limits(7)).is_err());
    }
}
