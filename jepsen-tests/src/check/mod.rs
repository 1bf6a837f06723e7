//! What a history says about the promise: one file per invariant that a history
//! can judge. Pure: a history in, violations out.
//!
//! The invariants are those of `node/ARCHITECTURE.md`. A run that did too little
//! or was not read to the end has no verdict, which is not a pass.

mod atomic;
mod counts;
mod fenced;
mod honest;
mod index;
mod linearizable;
mod not_duplicated;
mod not_lost;
mod one_winner;
mod ordered;
#[cfg(test)]
mod porcupine;
#[cfg(test)]
mod script;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::Serialize;

pub use counts::{Counts, Outcomes};

use crate::history::History;
use index::Index;

/// An invariant of the promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[expect(missing_docs, reason = "node/ARCHITECTURE.md says what they hold")]
pub enum Invariant {
    I2,
    I3,
    I4,
    I5,
    I6,
    I8,
    I9,
    I10,
}

impl Invariant {
    /// What it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::I2 => "I2 not lost",
            Self::I3 => "I3 not duplicated",
            Self::I4 => "I4 fenced",
            Self::I5 => "I5 ordered",
            Self::I6 => "I6 linearizable",
            Self::I8 => "I8 one winner",
            Self::I9 => "I9 atomic",
            Self::I10 => "I10 honest errors",
        }
    }
}

/// Something that must not have happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// What it breaks.
    pub invariant: Invariant,
    /// How, for people.
    pub what: String,
    /// The events that show it, by index.
    pub events: Vec<u64>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} (events", self.invariant.name(), self.what)?;
        for (position, index) in self.events.iter().enumerate() {
            write!(f, "{} {index}", if position == 0 { "" } else { "," })?;
        }
        f.write_str(")")
    }
}

/// What a run has to have done for a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Minimum {
    /// Operations that were answered.
    pub ok_ops: u64,
    /// Faults that were injected.
    pub faults: u64,
}

/// What a history comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It shows nothing that must not happen.
    Valid,
    /// It does.
    Invalid,
    /// It is not enough to tell.
    NoVerdict,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Valid => "valid",
            Self::Invalid => "INVALID",
            Self::NoVerdict => "no verdict",
        })
    }
}

/// A judged history.
#[derive(Debug, Clone, Serialize)]
pub struct Judgement {
    /// What is in it.
    pub counts: Counts,
    /// What must not have happened: by invariant, then in order of time.
    pub violations: Vec<Violation>,
    /// Why it is not enough to tell, if it is not.
    pub insufficient: Vec<String>,
}

impl Judgement {
    /// What it comes to. A violation is one however little was done.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        if !self.violations.is_empty() {
            Verdict::Invalid
        } else if !self.insufficient.is_empty() {
            Verdict::NoVerdict
        } else {
            Verdict::Valid
        }
    }
}

/// Judges `history` by every invariant.
#[must_use]
pub fn judge(history: &History, minimum: Minimum) -> Judgement {
    let index = Index::new(history);
    let counts = Counts::new(history);
    let mut insufficient = counts.below(minimum);
    let mut violations = Vec::new();
    not_lost::check(&index, &mut violations, &mut insufficient);
    not_duplicated::check(&index, &mut violations);
    fenced::check(&index, &mut violations);
    ordered::check(&index, &mut violations);
    linearizable::check(&index, &mut violations);
    one_winner::check(&index, &mut violations, &mut insufficient);
    atomic::check(&index, &mut violations);
    honest::check(&index, &mut violations);
    violations.sort_by_key(|violation| (violation.invariant, violation.events.clone()));
    Judgement {
        counts,
        violations,
        insufficient,
    }
}
