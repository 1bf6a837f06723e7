//! Reading everything that is kept, from the first offset on: what retention has
//! not given up is there, without a gap.

use std::time::Duration;

use huntlog_client::proto::ReadRequest;
use huntlog_client::{CallError, Client};

use super::{Shared, earliest_kept};

/// What the log of a node has, as a reader finds it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    first: u64,
    /// Offsets from `first` on, up to the first that is not where it should be.
    end: u64,
    misplaced: Option<u64>,
}

impl Found {
    fn from(first: u64) -> Self {
        Self {
            first,
            end: first,
            misplaced: None,
        }
    }

    fn take(&mut self, offset: u64) {
        if self.misplaced.is_none() && offset == self.end {
            self.end += 1;
        } else {
            self.misplaced.get_or_insert(offset);
        }
    }

    /// What is wrong with it, where the log ends at `end`.
    fn judge(&self, end: u64) -> Result<(), String> {
        let Self { first, .. } = self;
        match self.misplaced {
            Some(offset) => Err(format!(
                "I5: read from offset {first} on there is {offset} in the place of {}",
                self.end
            )),
            None if self.end < end => Err(format!(
                "I2: read from the first kept offset {first} on there is nothing from {} to {end}",
                self.end
            )),
            None => Ok(()),
        }
    }
}

/// Reads the log through `client` from its first kept offset to its end, until
/// that is answered, and judges it.
pub(super) async fn read_all_kept(shared: &Shared, client: &Client, node: u64) {
    let end = shared.seen.lock().end_offset();
    let mut first = 0;
    loop {
        match found(client, first).await {
            Ok(found) => {
                let judged = found.judge(end);
                let violation = judged.map_err(|what| format!("node {node}: {what}"));
                shared.seen.lock().violations.extend(violation.err());
                shared.coverage.lock().kept_read += 1;
                return;
            }
            Err(error) => match earliest_kept(&error) {
                Some(earliest) => {
                    shared.note_given_up(&error);
                    first = earliest;
                }
                None => tokio::time::sleep(Duration::from_millis(100)).await,
            },
        }
    }
}

async fn found(client: &Client, first: u64) -> Result<Found, CallError> {
    let mut reader = client.read(ReadRequest {
        from_offset: first,
        ..ReadRequest::default()
    });
    let mut found = Found::from(first);
    while let Some(page) = reader.next_page().await? {
        for event in page {
            found.take(event.offset);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(first: u64, offsets: &[u64], end: u64) -> bool {
        let mut found = Found::from(first);
        for offset in offsets {
            found.take(*offset);
        }
        found.judge(end).is_ok()
    }

    #[test]
    fn all_from_the_first_kept_offset_to_the_end_is_there() {
        assert!(judged(3, &[3, 4, 5], 6));
        assert!(judged(3, &[3, 4, 5, 6], 6));
        assert!(judged(6, &[], 6));
        assert!(!judged(3, &[3, 4], 6));
        assert!(!judged(3, &[4, 5], 6));
        assert!(!judged(3, &[3, 5], 6));
        assert!(!judged(3, &[3, 3, 4, 5], 6));
    }
}
