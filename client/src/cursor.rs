//! A reader's place in the log, kept right over nodes that come and go: what
//! was delivered is not delivered again, and a hole is noticed.

use huntlog_proto::v1::CommittedEvent;

/// A place in the log. Pure.
#[derive(Debug, Clone)]
pub(crate) struct Cursor {
    /// Everything that matches below it has been delivered.
    next_offset: u64,
    /// Some events are left out on purpose, so that holes mean nothing.
    filtered: bool,
}

impl Cursor {
    pub(crate) fn new(next_offset: u64, filtered: bool) -> Self {
        Self {
            next_offset,
            filtered,
        }
    }

    pub(crate) fn next_offset(&self) -> u64 {
        self.next_offset
    }

    /// Takes a node's page and leaves in it what is new.
    ///
    /// # Errors
    /// Says what is wrong with a page that breaks the contract; the cursor has
    /// not moved then.
    pub(crate) fn take(
        &mut self,
        events: &mut Vec<CommittedEvent>,
        next_offset: u64,
    ) -> Result<(), String> {
        let from = self.next_offset;
        events.retain(|event| event.offset >= from);
        let mut expected = from;
        for event in &*events {
            if event.offset < expected || (!self.filtered && event.offset > expected) {
                return Err(format!("offset {} where {expected} was due", event.offset));
            }
            expected = event.offset + 1;
        }
        if next_offset < expected && !events.is_empty() {
            return Err(format!(
                "next offset {next_offset} after an event at {}",
                expected - 1
            ));
        }
        if !self.filtered && next_offset > expected {
            return Err(format!(
                "next offset {next_offset} where {expected} was due"
            ));
        }
        self.next_offset = from.max(next_offset);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(offsets: &[u64]) -> Vec<CommittedEvent> {
        offsets
            .iter()
            .map(|&offset| CommittedEvent {
                offset,
                ..Default::default()
            })
            .collect()
    }

    fn take(cursor: &mut Cursor, offsets: &[u64], next: u64) -> Result<Vec<u64>, String> {
        let mut events = page(offsets);
        cursor.take(&mut events, next)?;
        Ok(events.iter().map(|event| event.offset).collect())
    }

    #[test]
    fn what_was_delivered_is_left_out() {
        let mut cursor = Cursor::new(5, false);
        assert_eq!(take(&mut cursor, &[5, 6], 7), Ok(vec![5, 6]));
        assert_eq!(take(&mut cursor, &[6, 7, 8], 9), Ok(vec![7, 8]));
        assert_eq!(take(&mut cursor, &[], 9), Ok(vec![]));
        assert_eq!(cursor.next_offset(), 9);
    }

    /// I5
    #[test]
    fn holes_and_disorder_are_faults() {
        let mut cursor = Cursor::new(0, false);
        assert!(take(&mut cursor, &[0, 2], 3).is_err());
        assert!(take(&mut cursor, &[0], 3).is_err());
        assert!(take(&mut cursor, &[1, 0], 2).is_err());
        assert!(take(&mut cursor, &[0, 1], 1).is_err());
        assert_eq!(cursor.next_offset(), 0);
    }

    #[test]
    fn a_filter_makes_holes_but_no_disorder() {
        let mut cursor = Cursor::new(0, true);
        assert_eq!(take(&mut cursor, &[3, 9], 20), Ok(vec![3, 9]));
        assert_eq!(take(&mut cursor, &[], 30), Ok(vec![]));
        assert!(take(&mut cursor, &[40, 35], 41).is_err());
        assert_eq!(cursor.next_offset(), 30);
    }
}
