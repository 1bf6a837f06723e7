//! Every bound of the client, in one place.

use std::time::Duration;

/// Batches of one session that may be sent and not yet answered. The cluster
/// refuses more.
pub const IN_FLIGHT_BATCHES_PER_SESSION: usize = 32;

/// The most events in one batch.
pub const BATCH_EVENTS: usize = 4_096;

/// The most bytes of encoded events in one batch.
pub const BATCH_BYTES: usize = 4 << 20;

/// The most bytes of one encoded event.
pub const EVENT_BYTES: usize = 1 << 20;

/// The most bytes of a session's, hunt's or player's name.
pub const NAME_BYTES: usize = 128;

/// Bytes of batches sent over one connection and not yet answered: under what
/// a node grants a connection (8 MiB), so that one connection alone never runs
/// into that refusal.
pub const IN_FLIGHT_BYTES_PER_CONNECTION: usize = 6 << 20;

/// Batches that a connection may have under way at first. Up to twice as many with
/// each round trip that uses them, until the cluster refuses one for want of room, or an
/// answer then takes [`SLOW_START_DELAY_MAX`] longer than the fastest.
pub const INITIAL_WINDOW_BATCHES: usize = 256;

/// When answers take so much longer, what is sent waits already; twice as much would
/// wait for longer (the thought of HyStart, RFC 9406). From then on one batch more is
/// tried with each round trip.
pub const SLOW_START_DELAY_MAX: Duration = Duration::from_millis(100);

/// Requests handed to the transport of one stream and not yet taken by it.
pub const STREAM_QUEUE_REQUESTS: usize = 256;

/// Commands of producers waiting for their connection's task.
pub const COMMAND_QUEUE: usize = 1_024;

/// What one event costs of the client's buffer beside its bytes: the ticket
/// and the bookkeeping around it.
pub const EVENT_OVERHEAD_BYTES: usize = 64;

/// The largest message taken from a node. A read's page and a batch's outcomes
/// fit with room to spare.
pub const MESSAGE_BYTES: usize = 32 << 20;

/// First delay of the exponential backoff.
pub const BACKOFF_MIN: Duration = Duration::from_millis(10);

/// Longest delay between attempts while no leader can be reached. Short, since
/// an election takes a few hundred milliseconds and one probe at a time per
/// connection costs the cluster next to nothing.
pub const UNAVAILABLE_BACKOFF_MAX: Duration = Duration::from_millis(100);

/// Longest delay after a refusal for want of room.
pub const OVERLOAD_BACKOFF_MAX: Duration = Duration::from_secs(2);

/// An open stream may always be silent for this long: a node says every second
/// that it has nothing to bring.
pub const STREAM_SILENCE_MIN: Duration = Duration::from_secs(3);

/// After so long without any answer on an append stream that owes some, the
/// nodes are asked who leads: one that hangs does not break its connections. An
/// election takes about as long.
pub const STREAM_DOUBT: Duration = Duration::from_millis(300);

/// How long an unreachable node is left alone while another can be tried:
/// doubled with each failure in a row, from the first to the second.
pub const SUSPECT: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// How long a node of another cluster is left alone.
pub const FOREIGN: Duration = Duration::from_mins(1);

/// Addresses of nodes kept beside those given.
pub const LEARNED_NODES: usize = 32;

/// How often a client asks who the members are.
pub const MEMBERS_INTERVAL: Duration = Duration::from_secs(2);

// Nodes of the client's own cluster go first, however often they have failed.
const _: () = assert!(SUSPECT.1.as_millis() < FOREIGN.as_millis());
const _: () = assert!(EVENT_BYTES <= BATCH_BYTES);
const _: () = assert!(BATCH_BYTES < IN_FLIGHT_BYTES_PER_CONNECTION);
const _: () = assert!(BATCH_BYTES < MESSAGE_BYTES);

/// The longest time a batch may be given. The cluster forgets a session no
/// sooner than after an hour, so that none is forgotten under a living batch.
pub const TIMEOUT: Duration = Duration::from_mins(30);
