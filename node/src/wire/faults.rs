//! What is wrong with a request: all of it, each fault at its field.

use std::fmt;

use crate::limits;

/// One thing that is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldFault {
    /// The field, such as `batch.events[3].player`.
    pub path: String,
    /// What is wrong with it and how to put it right.
    pub message: String,
}

/// A request that can not be taken as it is. Nothing was done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct InvalidRequest(pub Vec<FieldFault>);

/// How many faults the message itself spells out; the others are in the
/// details.
const FAULTS_IN_MESSAGE: usize = 3;

impl fmt::Display for InvalidRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(faults) = self;
        f.write_str("the request is not valid: ")?;
        for (position, fault) in faults.iter().take(FAULTS_IN_MESSAGE).enumerate() {
            let between = if position == 0 { "" } else { "; " };
            write!(f, "{between}{}: {}", fault.path, fault.message)?;
        }
        match faults.len().saturating_sub(FAULTS_IN_MESSAGE) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

/// Gathers faults. Costs nothing as long as there are none.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<FieldFault>);

impl Faults {
    pub(super) fn add(&mut self, path: impl fmt::Display, message: impl Into<String>) {
        self.0.push(FieldFault {
            path: shortened(path.to_string()),
            message: shortened(message.into()),
        });
    }

    /// Checks an id that must be there.
    pub(super) fn id(&mut self, id: &str, path: impl fmt::Display) {
        if id.is_empty() {
            self.add(path, "an id is needed");
        } else {
            self.optional_id(id, path);
        }
    }

    /// Checks an id that may be left out.
    pub(super) fn optional_id(&mut self, id: &str, path: impl fmt::Display) {
        if id.len() > limits::ID_BYTES_MAX {
            self.add(
                &path,
                format!(
                    "{} bytes are too many, at most {} are possible",
                    id.len(),
                    limits::ID_BYTES_MAX
                ),
            );
        }
        if has_control_characters(id) {
            self.add(path, "control characters are not possible");
        }
    }

    /// `value`, unless there are faults.
    pub(super) fn finish<T>(self, value: T) -> Result<T, InvalidRequest> {
        if self.0.is_empty() {
            Ok(value)
        } else {
            Err(InvalidRequest(self.0))
        }
    }
}

/// Faults may quote what was sent, whatever its length, and travel in headers.
fn shortened(mut text: String) -> String {
    if text.len() > limits::FAULT_TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(limits::FAULT_TEXT_BYTES_MAX));
        text.push('…');
    }
    text
}

fn has_control_characters(text: &str) -> bool {
    if text.is_ascii() {
        // Without an early end the loop is a few vector instructions.
        text.bytes()
            .fold(false, |found, byte| found | byte.is_ascii_control())
    } else {
        text.chars().any(char::is_control)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults_of(id: &str) -> Vec<String> {
        let mut faults = Faults::default();
        faults.id(id, "id");
        faults.0.into_iter().map(|fault| fault.message).collect()
    }

    #[test]
    fn ids_are_short_printable_text() {
        for good in ["a", "Fähre 7", "東京", &"x".repeat(128), "a b", "~"] {
            assert!(faults_of(good).is_empty(), "{good:?}");
        }
        assert_eq!(faults_of(""), ["an id is needed"]);
        for bad in ["a\nb", "\0", "\u{7f}", "ä\u{85}", "\u{9b}"] {
            assert_eq!(
                faults_of(bad),
                ["control characters are not possible"],
                "{bad:?}"
            );
        }
        assert_eq!(
            faults_of(&"ä".repeat(65)),
            ["130 bytes are too many, at most 128 are possible"]
        );
        assert_eq!(faults_of(&"\t".repeat(129)).len(), 2);
    }

    #[test]
    fn what_is_quoted_is_shortened() {
        let mut faults = Faults::default();
        faults.add(
            "hunt",
            format!("`{}` is named already", "ä".repeat(1 << 20)),
        );
        let fault = faults.0.pop().expect("one");
        assert!(fault.message.starts_with("`ää") && fault.message.ends_with('…'));
        assert!(fault.message.len() <= limits::FAULT_TEXT_BYTES_MAX + '…'.len_utf8());
    }

    #[test]
    fn the_message_names_the_first_faults_and_counts_the_rest() {
        let mut faults = Faults::default();
        for position in 0..5 {
            faults.add(format_args!("events[{position}]"), "wrong");
        }
        let error = faults.finish(()).expect_err("there are faults");
        assert_eq!(
            error.to_string(),
            "the request is not valid: events[0]: wrong; events[1]: wrong; events[2]: wrong; and 2 more"
        );
    }
}
