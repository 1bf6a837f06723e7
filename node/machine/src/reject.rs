//! Why a rule of the hunt refuses an event.

macro_rules! reject_reasons {
    ($($(#[$doc:meta])* $name:ident = $number:literal $wire:literal,)*) => {
        /// Why a rule of the hunt refuses an event. The numbers are those of
        /// `huntlog.v1.RejectReason` and never change.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum RejectReason {
            $($(#[$doc])* $name = $number,)*
        }

        impl RejectReason {
            /// Every reason, in the order of their numbers.
            pub const ALL: [Self; 23] = [$(Self::$name,)*];

            /// Its name in the wire contract, without the prefix.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $wire,)*
                }
            }
        }
    };
}

reject_reasons! {
    /// No such hunt.
    HuntUnknown = 1 "HUNT_UNKNOWN",
    /// The hunt has been created before.
    HuntExists = 2 "HUNT_EXISTS",
    /// [`HuntDefinition::faults`](crate::HuntDefinition::faults) has some.
    DefinitionInvalid = 3 "DEFINITION_INVALID",
    /// The hunt's state has no such transition.
    IllegalTransition = 4 "ILLEGAL_TRANSITION",
    /// The hunt has not started, or is paused.
    HuntNotRunning = 5 "HUNT_NOT_RUNNING",
    /// Registration has not been opened.
    RegistrationClosed = 6 "REGISTRATION_CLOSED",
    /// As many players have registered as may.
    HuntFull = 7 "HUNT_FULL",
    /// The player has not registered.
    PlayerUnknown = 8 "PLAYER_UNKNOWN",
    /// The player has registered before.
    PlayerExists = 9 "PLAYER_EXISTS",
    /// The player has withdrawn.
    PlayerWithdrawn = 10 "PLAYER_WITHDRAWN",
    /// The player was disqualified.
    PlayerDisqualified = 11 "PLAYER_DISQUALIFIED",
    /// The hunt has no such clue.
    ClueUnknown = 12 "CLUE_UNKNOWN",
    /// The player has not solved what the clue requires.
    ClueLocked = 13 "CLUE_LOCKED",
    /// The player has solved it.
    ClueSolved = 14 "CLUE_SOLVED",
    /// The player has used up the clue's attempts.
    AttemptsExhausted = 15 "ATTEMPTS_EXHAUSTED",
    /// The hunt has no such treasure.
    TreasureUnknown = 16 "TREASURE_UNKNOWN",
    /// The player has not solved what the treasure requires.
    TreasureLocked = 17 "TREASURE_LOCKED",
    /// As many players have won it as can.
    TreasureExhausted = 18 "TREASURE_EXHAUSTED",
    /// The player has won it.
    TreasureAlreadyWon = 19 "TREASURE_ALREADY_WON",
    /// The clue has no such hint.
    HintUnknown = 20 "HINT_UNKNOWN",
    /// The player has taken it.
    HintAlreadyTaken = 21 "HINT_ALREADY_TAKEN",
    /// The hunt is finished or cancelled.
    HuntOver = 22 "HUNT_OVER",
    /// As many hunts have been created as may.
    HuntsFull = 23 "HUNTS_FULL",
}

impl RejectReason {
    /// Its number, 1 to 23.
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The reason of that number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }
}
