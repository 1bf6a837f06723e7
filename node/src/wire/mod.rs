//! Between the public contract and the machine: the only place that knows both.
//!
//! What comes in is checked whole, and every fault is named with the path of
//! its field; what goes out is matched exhaustively, so that a new kind of
//! event, effect or reason does not compile before it has a place in the
//! contract.

mod batch;
mod committed;
mod definition;
mod faults;
mod filter;
#[cfg(test)]
mod fuzz;
mod member;
mod outcome;
mod page;
mod session;
mod time;
mod views;

pub use batch::{NamedCommand, batch_command, batch_from_proto, level_needed};
pub use committed::encode_committed;
pub use definition::definition_to_proto;
pub use faults::{FieldFault, InvalidRequest};
pub use filter::{ReadLevel, consistency_from_proto, filter_from_proto};
pub use member::{members_from_proto, node_from_proto};
pub use outcome::{append_response, effect_to_proto, outcome_to_proto};
pub use page::{cut, page, page_size_within};
pub use session::{open_session_command, open_session_response};
pub use time::timestamp_of_ms;
pub use views::{
    clue_stats_to_proto, hunt_id, hunt_to_proto, player_id, player_to_proto, row_to_proto,
    session_to_proto, summary_to_proto,
};
