//! The simulation: whole clusters of huntlog's own nodes and clients in one
//! thread, over a simulated network and simulated disks, in simulated time. One
//! seed decides everything, and a run of a seed can be repeated byte for byte.
//!
//! What is replaced: sockets ([`net`]), files and sled ([`disk`]), clocks and
//! randomness ([`interpose`]). All else is what production runs: tonic, hyper,
//! openraft, the node, the client library. Each process has a runtime of its own
//! ([`host`]), so that it can be killed, paused, and live by its own clock.
//!
//! What is judged: the clients' history, by [`crate::check`]; what the nodes say
//! of themselves ([`clients::Seen`]); and that once everything is healed, the
//! cluster lives, answers all that waits, and every node has come to the same.

#![expect(
    missing_docs,
    reason = "what is public here is for the command line alone"
)]

mod clients;
mod coverage;
mod deposed;
mod disk;
mod host;
mod interpose;
mod invariants;
mod middlebox;
mod nemesis;
mod net;
mod node;
mod random;
mod run;
mod trace;
mod world;

pub use run::{Outcome, Plan, run};
