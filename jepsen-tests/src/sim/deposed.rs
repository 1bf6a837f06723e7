//! The one panic that is not held against a run: an assertion of openraft that only
//! debug builds have, and that a deposed leader can meet.
//!
//! Its stream to a follower looks once more at how far the log goes, which by then
//! is a newer leader's log and shorter than what the stream has sent, and asserts
//! that there is nothing to read backwards (`StreamState` in openraft's
//! `replication/stream_state.rs`). A release build reads nothing, and notices the
//! newer vote before it sends anything.

use super::trace::Panic;

const ASSERTION: &str = "read_log_entries received reversed range";
const FILE: &str = "replication/stream_state.rs";

/// Whether `panic` is that assertion, met like that: the log now ends with an entry
/// of another node's newer leadership, before what was sent, and this node has cut
/// its log off. A living leader's log never gets shorter, and an entry of its own
/// leadership is never behind another.
pub(super) fn is_of_a_deposed_leader(panic: &Panic) -> bool {
    if !panic.text.contains(ASSERTION) || !panic.text.contains(FILE) || !panic.has_cut_its_log {
        return false;
    }
    let range = panic.text.rsplit_once("log_id_range: (");
    let range = range.and_then(|(_, range)| range.split_once(']'));
    let range = range.and_then(|(range, _)| range.split_once(", "));
    let Some((Some(sent), Some(last))) = range.map(|(sent, last)| (log_id(sent), log_id(last)))
    else {
        return false;
    };
    (last.term, last.node) > (sent.term, sent.node)
        && last.index < sent.index
        && last.node != panic.host
}

struct LogId {
    term: u64,
    node: u64,
    index: u64,
}

/// A log id as openraft shows it, like `T4-N2.261`.
fn log_id(text: &str) -> Option<LogId> {
    let (leadership, index) = text.split_once('.')?;
    let (term, node) = leadership.strip_prefix('T')?.split_once("-N")?;
    Some(LogId {
        term: term.parse().ok()?,
        node: node.parse().ok()?,
        index: index.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panic(host: u64, range: &str) -> Panic {
        Panic {
            host,
            text: format!(
                "panicked at openraft/src/replication/stream_state.rs:228:17:\n\
                 assertion `left == right` failed: read_log_entries received reversed range: \
                 start(262) > end(256), log_id_range: {range}\n  left: 262\n right: 256"
            ),
            has_cut_its_log: true,
        }
    }

    const OF_ANOTHER: &str = "(T4-N2.261, T5-N1.255]";

    #[test]
    fn a_deposed_leader_whose_log_became_another_s_is_excused() {
        assert!(is_of_a_deposed_leader(&panic(2, OF_ANOTHER)));
    }

    #[test]
    fn nothing_else_is() {
        // Who wrote what its log ends with leads, and has lost entries.
        assert!(!is_of_a_deposed_leader(&panic(1, OF_ANOTHER)));
        // What was sent, and what there is, are of one leadership, or turned round.
        assert!(!is_of_a_deposed_leader(&panic(3, "(T4-N2.261, T4-N2.255]")));
        assert!(!is_of_a_deposed_leader(&panic(3, "(T5-N1.261, T4-N2.255]")));
        assert!(!is_of_a_deposed_leader(&panic(2, "(T4-N2.261, T5-N1.265]")));
        assert!(!is_of_a_deposed_leader(&panic(2, "(None, T5-N1.255]")));
        // Its log is as long as it was.
        let mut uncut = panic(2, OF_ANOTHER);
        uncut.has_cut_its_log = false;
        assert!(!is_of_a_deposed_leader(&uncut));
        let mut elsewhere = panic(2, OF_ANOTHER);
        elsewhere.text = elsewhere.text.replace("stream_state", "engine");
        assert!(!is_of_a_deposed_leader(&elsewhere));
    }
}
