//! The client library of huntlog, a replicated event log for treasure-hunt
//! engines.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use huntlog_client::{Client, ClientOptions, event};
//!
//! let client = Client::connect(["10.0.0.1:7650", "10.0.0.2:7650"], ClientOptions::default())?;
//! let producer = client.session("game-server-1").await?;
//! let guess = event::clue_attempted("hunt", "team-1", "clue-1", "SPHINX");
//! let appended = producer.append(guess).await?.await?;
//! println!("event {:?}: {:?}", appended.offset(), appended.outcome);
//! # Ok(())
//! # }
//! ```
//!
//! What the library takes care of:
//!
//! - **Exactly once.** Each batch has a number in its session and keeps it
//!   through every retry, over leader changes, restarts of the cluster, and
//!   streams that break; the cluster applies a number once. See [`sequencer`].
//! - **Honest errors.** A failed append says NOT_APPLIED or UNKNOWN
//!   ([`AppendError`]), and UNKNOWN only when it really cannot be known.
//! - **Throughput.** Single events gather into batches, up to 32 batches of a
//!   session are under way at once, and thousands of sessions share one
//!   connection.
//! - **Bounds.** What is submitted and not resolved is bounded in bytes;
//!   appending waits at the bound. When the cluster refuses for want of room, a
//!   client has less under way, and finds out by and by how much there is room for
//!   (`lane/congestion.rs`). Everything else is in [`limits`].
//! - **Finding the leader**, and reads and subscriptions that go on at another
//!   node where one breaks off.

mod backoff;
mod client;
mod cluster;
mod cursor;
mod dialer;
mod directory;
mod encoding;
mod error;
pub mod event;
mod lane;
pub mod limits;
mod options;
mod pages;
mod producer;
mod reader;
pub mod sequencer;
mod status;
mod subscription;

pub use client::Client;
pub use dialer::{ByteStream, Dialer, Dialing};
pub use error::{
    AppendError, CallError, Cause, ConfigError, Disposition, InvalidBatch, Reason, Refusal,
};
pub use huntlog_proto::v1 as proto;
pub use options::{ClientOptions, SessionOptions};
pub use producer::{Appended, EventAppended, Producer, Ticket};
pub use reader::Reader;
pub use subscription::{Start, Subscription};
