//! The life of a hunt, as one table: what each kind of event does in each
//! state. The rules work from it, and the documentation's diagram is drawn from
//! it.

use crate::codec::{DecodeError, Reader};
use crate::{EventType, RejectReason};
use std::fmt::Write as _;

/// Where a hunt is in its life. The numbers are those of `huntlog.v1.HuntState`
/// and never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum HuntState {
    /// Created, not yet announced.
    Draft = 1,
    /// Players may register.
    Open = 2,
    /// Clues can be attempted; players may still register.
    Running = 3,
    /// Suspended.
    Paused = 4,
    /// Ended in good order.
    Finished = 5,
    /// Ended for another reason.
    Cancelled = 6,
}

impl HuntState {
    /// Every state, in the order of their numbers.
    pub const ALL: [Self; 6] = [
        Self::Draft,
        Self::Open,
        Self::Running,
        Self::Paused,
        Self::Finished,
        Self::Cancelled,
    ];

    /// Its number, 1 to 6.
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The state of that number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }

    /// Its name in the wire contract, without the prefix.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Draft => "DRAFT",
            Self::Open => "OPEN",
            Self::Running => "RUNNING",
            Self::Paused => "PAUSED",
            Self::Finished => "FINISHED",
            Self::Cancelled => "CANCELLED",
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let tag = reader.u8("hunt state")?;
        Self::from_number(tag).ok_or(DecodeError::UnknownTag {
            what: "hunt state",
            tag,
        })
    }
}

/// What an event of some kind does to a hunt in some state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The hunt goes to that state.
    To(HuntState),
    /// The state allows it; the other rules decide.
    Stay,
    /// The state forbids it.
    Refuse(RejectReason),
}

use HuntState::{Cancelled, Draft, Finished, Open, Paused, Running};
use Step::{Stay, To};

const WRONG: Step = Step::Refuse(RejectReason::IllegalTransition);
const IDLE: Step = Step::Refuse(RejectReason::HuntNotRunning);
const SHUT: Step = Step::Refuse(RejectReason::RegistrationClosed);
const OVER: Step = Step::Refuse(RejectReason::HuntOver);
const EXISTS: Step = Step::Refuse(RejectReason::HuntExists);

/// The row of each kind, in the order of their numbers; the column of each
/// state likewise. A hunt that does not exist has no row: `HuntCreated` makes
/// one in DRAFT, everything else is refused as HUNT_UNKNOWN.
///
/// Position reports, chat (`Custom`) and announcements are useful before the
/// start, so they are taken in any state until the hunt is over.
#[rustfmt::skip]
const TABLE: [(EventType, [Step; 6]); 15] = [
    //                              DRAFT          OPEN           RUNNING        PAUSED         FINISHED CANCELLED
    (EventType::HuntCreated,        [EXISTS,        EXISTS,        EXISTS,        EXISTS,        EXISTS,  EXISTS]),
    (EventType::HuntOpened,         [To(Open),      WRONG,         WRONG,         WRONG,         OVER,    OVER]),
    (EventType::HuntStarted,        [To(Running),   To(Running),   WRONG,         WRONG,         OVER,    OVER]),
    (EventType::HuntPaused,         [WRONG,         WRONG,         To(Paused),    WRONG,         OVER,    OVER]),
    (EventType::HuntResumed,        [WRONG,         WRONG,         WRONG,         To(Running),   OVER,    OVER]),
    (EventType::HuntFinished,       [WRONG,         WRONG,         To(Finished),  To(Finished),  OVER,    OVER]),
    (EventType::HuntCancelled,      [To(Cancelled), To(Cancelled), To(Cancelled), To(Cancelled), OVER,    OVER]),
    (EventType::PlayerRegistered,   [SHUT,          Stay,          Stay,          Stay,          OVER,    OVER]),
    (EventType::PlayerWithdrawn,    [Stay,          Stay,          Stay,          Stay,          OVER,    OVER]),
    (EventType::PlayerDisqualified, [Stay,          Stay,          Stay,          Stay,          OVER,    OVER]),
    (EventType::ClueAttempted,      [IDLE,          IDLE,          Stay,          IDLE,          OVER,    OVER]),
    (EventType::TreasureClaimed,    [IDLE,          IDLE,          Stay,          IDLE,          OVER,    OVER]),
    (EventType::HintTaken,          [IDLE,          IDLE,          Stay,          IDLE,          OVER,    OVER]),
    (EventType::Custom,             [Stay,          Stay,          Stay,          Stay,          OVER,    OVER]),
    (EventType::Announced,          [Stay,          Stay,          Stay,          Stay,          OVER,    OVER]),
];

/// What the log's time does by itself: the kind of event it makes when the
/// definition's time comes, and the states in which it does.
const CLOCK: [(Clock, EventType, &[HuntState]); 2] = [
    (Clock::StartsAt, EventType::HuntStarted, &[Draft, Open]),
    (Clock::EndsAt, EventType::HuntFinished, &[Running, Paused]),
];

/// A time in the definition at which the hunt changes by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clock {
    StartsAt,
    EndsAt,
}

impl Clock {
    fn name(self) -> &'static str {
        match self {
            Self::StartsAt => "starts_at",
            Self::EndsAt => "ends_at",
        }
    }
}

/// What an event of this kind does to a hunt in this state.
#[must_use]
pub fn step(state: HuntState, kind: EventType) -> Step {
    let (_, row) = TABLE[usize::from(kind.number()) - 1];
    row[usize::from(state.number()) - 1]
}

/// What the clock will do to a hunt in this state, if its definition says when.
pub(crate) fn awaited(state: HuntState) -> Option<(Clock, EventType)> {
    CLOCK
        .iter()
        .find(|(_, _, states)| states.contains(&state))
        .map(|&(clock, kind, _)| (clock, kind))
}

/// The transitions as a Mermaid state diagram.
#[must_use]
pub fn mermaid() -> String {
    let mut diagram = String::from("stateDiagram-v2\n    [*] --> DRAFT: HuntCreated\n");
    for (kind, row) in TABLE {
        for (from, step) in HuntState::ALL.into_iter().zip(row) {
            let To(to) = step else { continue };
            let clock = CLOCK
                .iter()
                .find(|(_, event, states)| *event == kind && states.contains(&from))
                .map(|(clock, _, _)| format!(", or the clock at {}", clock.name()))
                .unwrap_or_default();
            let (from, to, kind) = (from.name(), to.name(), kind.name());
            writeln!(diagram, "    {from} --> {to}: {kind}{clock}").expect("a String takes all");
        }
    }
    for state in [Finished, Cancelled] {
        writeln!(diagram, "    {} --> [*]", state.name()).expect("a String takes all");
    }
    diagram
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_columns_are_where_they_are_looked_for() {
        for (position, (kind, _)) in TABLE.into_iter().enumerate() {
            assert_eq!(usize::from(kind.number()), position + 1);
        }
        for (position, state) in HuntState::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(state.number()), position + 1);
        }
    }

    #[test]
    fn nothing_leaves_an_end() {
        for state in [Finished, Cancelled] {
            for kind in EventType::ALL {
                assert!(matches!(step(state, kind), Step::Refuse(_)));
            }
            assert_eq!(awaited(state), None);
        }
    }

    #[test]
    fn the_clock_makes_only_legal_transitions() {
        for (_, kind, states) in CLOCK {
            for &state in states {
                assert!(matches!(step(state, kind), To(_)), "{kind:?} in {state:?}");
            }
        }
    }

    #[test]
    fn the_diagram_has_every_transition() {
        let diagram = mermaid();
        let transitions = TABLE
            .iter()
            .flat_map(|(_, row)| row)
            .filter(|step| matches!(step, To(_)))
            .count();
        assert_eq!(diagram.lines().count(), 1 + 1 + transitions + 2);
        assert!(diagram.contains("OPEN --> RUNNING: HuntStarted, or the clock at starts_at\n"));
    }
}
