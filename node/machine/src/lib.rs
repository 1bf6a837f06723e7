//! The pure core of huntlog: a deterministic state machine over the entries of
//! a partition's log.
//!
//! Commands go in, outcomes come out, and nothing else: no clock, no storage, no
//! network, no randomness. Time enters with each entry. The same log gives the
//! same state, outcomes, records and digests on every node (I7).
//!
//! ```text
//! Batch --encode_batch--> EncodedCommand --EntryBuilder--> entry bytes
//!                                                             | the log
//! Applied { results, record } <--Machine::apply--------------+
//! (entry, record) --history::events--> CommittedEvent         queries, View
//! ```
//!
//! | module | what it has |
//! |---|---|
//! | `event`, `definition`, `answer` | what clients submit |
//! | `codec` | the encodings of entries, records and commands |
//! | `workflow` | the life of a hunt as one table |
//! | `hunt` | one hunt: rules, players, scoreboard |
//! | `sessions` | exactly-once: sequences, epochs, results, forgetting |
//! | `outcome`, `effect`, `reject` | what is decided about batches and events |
//! | `apply`, `machine`, `view` | the fold, and what can be asked of it |
//! | `names` | a hunt or a session by its name, for the fold |
//! | `level` | which release reads which log |
//! | `digest` | how replicas find out that they differ |
//! | `history` | events as readers see them, from entry and record |
//! | `snapshot` | the whole state as bytes, and back |
//! | `limits` | the bounds of every table |

mod answer;
mod apply;
mod codec;
mod definition;
mod digest;
mod effect;
mod event;
pub mod history;
mod hunt;
mod level;
pub mod limits;
mod log;
mod machine;
mod names;
mod outcome;
mod recorded;
mod reject;
mod sessions;
mod snapshot;
mod view;
pub mod workflow;

pub use answer::{answer_hash, derived_salt, normalise};
pub use codec::DecodeError;
pub use codec::batch::{
    BatchRef, CommandRef, EncodedCommand, Events, encode_batch, encode_open_session,
    encode_raise_level, encode_reopen_session,
};
pub use codec::definition::EncodedDefinition;
pub use codec::entry::{Commands, EncodedCommandRef, EntryBuilder, EntryRef, Needs};
pub use codec::event::{EventRef, KindRef};
pub use codec::record::RecordHeader;
pub use definition::{Clue, DefinitionFault, Hint, HuntDefinition, Treasure};
pub use digest::{Digest, DigestCheck};
pub use effect::{Effect, Effects};
pub use event::{Batch, Event, EventKind, EventType, ExpectedRevision};
pub use hunt::{
    ClueStats, EntryIndex, Hunt, LastSolve, PlayerRef, PlayerStatus, Scoreboard, ScoreboardRow,
    TreasureStats,
};
pub use level::{FIRST_LEVEL, LATEST_LEVEL, LevelRange, release_of};
pub use limits::Limits;
pub use log::{LogId, Timestamp};
pub use machine::{ApplyError, Counters, Machine};
pub use outcome::{
    Applied, BatchOutcome, BatchResult, CommandResult, EventOutcome, Outcomes, Refusal,
    SessionRefusal,
};
pub use reject::RejectReason;
pub use sessions::SessionInfo;
pub use snapshot::RestoreError;
pub use view::View;
pub use workflow::HuntState;
