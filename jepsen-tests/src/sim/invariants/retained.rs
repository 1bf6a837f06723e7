//! History is given up only as the retention says: the newest so many bytes stay,
//! and what no snapshot covers stays (DESIGN 6, "History is a range of its own";
//! 7, "Purge only what retention allows and a snapshot covers").

/// What a node has of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sim) struct Kept {
    /// Its first log index.
    pub(in crate::sim) from: u64,
    /// What its segments hold, in bytes.
    pub(in crate::sim) bytes: u64,
}

/// Segments go whole, and each is a write larger at most than it is to be.
const SEGMENT_OVER_BYTES: u64 = 128 << 10;

/// Judges what the node keeps that keeps the most of the log: the others may have
/// been sent a snapshot in its place. `retention` is how many bytes are to stay;
/// none means all.
pub(in crate::sim) fn retained(
    node: u64,
    kept: Kept,
    segment_bytes: u64,
    retention: Option<u64>,
) -> Result<(), String> {
    if kept.from <= 1 {
        return Ok(());
    }
    let Some(stay) = retention else {
        return Err(format!(
            "node {node} has given up the log before {}, and everything is to be kept",
            kept.from
        ));
    };
    if kept.bytes + segment_bytes + SEGMENT_OVER_BYTES < stay {
        return Err(format!(
            "node {node} keeps {} bytes from log index {} on, where {stay} are to stay",
            kept.bytes, kept.from
        ));
    }
    Ok(())
}

/// Judges where a node that is ready says that its history begins, by its newest
/// snapshot.
pub(in crate::sim) fn covered(node: u64, first: u64, snapshot: u64) -> Result<(), String> {
    if first > snapshot + 1 {
        return Err(format!(
            "node {node} has given up the log before {first}, and its newest snapshot is of {snapshot}"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_bytes_stay() {
        let kept = |from, bytes| retained(1, Kept { from, bytes }, 1_000, Some(500_000));
        assert_eq!(kept(1, 7), Ok(()));
        assert_eq!(kept(70, 400_000), Ok(()));
        assert!(kept(70, 300_000).is_err());
    }

    #[test]
    fn without_a_retention_everything_stays() {
        let kept = |from| {
            retained(
                1,
                Kept {
                    from,
                    bytes: 1 << 30,
                },
                1_000,
                None,
            )
        };
        assert_eq!(kept(1), Ok(()));
        assert!(kept(2).is_err());
    }

    #[test]
    fn what_no_snapshot_covers_stays() {
        assert_eq!(covered(1, 1, 0), Ok(()));
        assert_eq!(covered(1, 31, 30), Ok(()));
        assert!(covered(1, 32, 30).is_err());
    }
}
