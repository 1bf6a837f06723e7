//! Every bound of a node: sizes, queues, buffers, tables, retries and
//! deadlines, and how they depend on each other.
//!
//! Invariant I11: nothing grows without a limit named here. Past a limit the
//! answer is `RESOURCE_EXHAUSTED` with a retry delay (or `INVALID_ARGUMENT`
//! when the request itself is too large), and what was accepted before is
//! unharmed. They are constants, because an operator has no reason to change
//! them; what an operator does change is in [`crate::config`].
//!
//! Two kinds of limits stand elsewhere, because they are not a node's to choose:
//! those that decide replicated outcomes (sessions, kept results, idle time)
//! belong to the log's version and are the machine's `Limits`; those of the files
//! on disk are the storage's `limits`.
//!
//! Sizes are bytes of the encoded protobuf message unless said otherwise.

use std::time::Duration;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

// --- What a client may send -------------------------------------------------

/// One event.
pub const EVENT_BYTES_MAX: usize = MIB;
/// The text of an announcement.
pub const ANNOUNCEMENT_BYTES_MAX: usize = 4_096;
/// All events of one batch together.
pub const BATCH_BYTES_MAX: usize = 4 * MIB;
/// The events of one batch.
pub const BATCH_EVENTS_MAX: usize = 4096;
/// The expected revisions of one batch: one for each hunt it can touch.
pub const BATCH_EXPECTED_REVISIONS_MAX: usize = BATCH_EVENTS_MAX;
/// An id: of a session, hunt, player, clue, treasure, hint, or custom type.
pub const ID_BYTES_MAX: usize = 128;
/// The nonce of a session's opening, shortest: it must not repeat by chance.
pub const SESSION_NONCE_BYTES_MIN: usize = 8;
/// The nonce of a session's opening, longest.
pub const SESSION_NONCE_BYTES_MAX: usize = 64;
/// Batches of one session that may be in flight at once.
pub const SESSION_IN_FLIGHT_BATCHES_MAX: usize = 32;
/// The hunts, players and types one filter may name, together.
pub const FILTER_VALUES_MAX: usize = 1024;
/// The items of a page when the request names no size.
pub const PAGE_ITEMS_DEFAULT: usize = 100;
/// The items of a page at most; a request for more is refused.
pub const PAGE_ITEMS_MAX: usize = 1000;
/// The rows of a scoreboard's page at most.
pub const SCOREBOARD_ROWS_MAX: usize = 10_000;

/// What a request holds beside its events: the expected revisions (an id, a
/// number and their framing each), the session, and room for fields to come.
const REQUEST_OVERHEAD_BYTES_MAX: usize = MIB;
/// The largest message taken on the client port; tonic's default of 4 MiB has
/// no room for the rest of a full batch.
pub const CLIENT_MESSAGE_BYTES_MAX: usize = BATCH_BYTES_MAX + REQUEST_OVERHEAD_BYTES_MAX;
/// The headers of one request.
pub const CLIENT_HEADERS_BYTES_MAX: u32 = 16 * 1024;

// An expected revision: the hunt's id, a varint of ten bytes, and three
// tag-length pairs of at most four bytes.
const _: () = assert!(
    BATCH_EXPECTED_REVISIONS_MAX * (ID_BYTES_MAX + 10 + 12) + 4 * ID_BYTES_MAX
        <= REQUEST_OVERHEAD_BYTES_MAX
);
const _: () = assert!(EVENT_BYTES_MAX <= BATCH_BYTES_MAX);
// An id is too long, or it is not, wherever it is looked at.
const _: () = assert!(ID_BYTES_MAX == huntlog_machine::limits::ID_BYTES_MAX);
const _: () = assert!(PAGE_ITEMS_DEFAULT <= PAGE_ITEMS_MAX);
const _: () = assert!(SESSION_NONCE_BYTES_MIN <= SESSION_NONCE_BYTES_MAX);

// --- Connections and requests -----------------------------------------------

/// Connections on the client port; the next one waits in the kernel's backlog.
pub const CLIENT_CONNECTIONS_MAX: usize = 8192;
/// Within this time a new connection has to begin: as HTTP/2 does on the gRPC
/// ports, with a whole request on the admin port.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Requests and streams of one client connection that are open at once.
pub const CLIENT_STREAMS_PER_CONNECTION_MAX: u32 = 4096;
/// Flow-control window of one stream on the client port.
pub const CLIENT_STREAM_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
/// Flow-control window of one client connection: what a client can have sent
/// without this node having taken it.
pub const CLIENT_CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// A silent client is asked for a sign of life after this time.
pub const CLIENT_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// And its connection is closed when it has not answered within this time.
pub const CLIENT_KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// The deadline of a unary request that names none.
pub const REQUEST_DEADLINE_DEFAULT: Duration = Duration::from_secs(10);
/// The longest deadline honoured; a later one is cut to it.
pub const REQUEST_DEADLINE_MAX: Duration = Duration::from_secs(300);
/// How much longer a forwarding node waits for the answer to a batch of an
/// `AppendStream` than the leader does: the leader knows more.
pub const FORWARD_ANSWER_GRACE: Duration = Duration::from_secs(1);

const _: () = assert!(CLIENT_STREAM_WINDOW_BYTES <= CLIENT_CONNECTION_WINDOW_BYTES);
const _: () = assert!(REQUEST_DEADLINE_DEFAULT.as_millis() <= REQUEST_DEADLINE_MAX.as_millis());

// --- Appends on their way into the log --------------------------------------

/// Appends a node holds that are not answered yet, forwarded ones included.
pub const IN_FLIGHT_BYTES_MAX: usize = 64 * MIB;
/// The share of one connection, so that one client cannot take all of it.
pub const IN_FLIGHT_BYTES_PER_CONNECTION_MAX: usize = 8 * MIB;
/// What an append counts at least: a small one costs its bookkeeping (waiter,
/// queue slots, spans) rather than its bytes.
pub const IN_FLIGHT_BYTES_PER_APPEND_MIN: usize = KIB;
/// Appends a node can hold; follows from the two above.
pub const IN_FLIGHT_APPENDS_MAX: usize = IN_FLIGHT_BYTES_MAX / IN_FLIGHT_BYTES_PER_APPEND_MIN;
/// Batches of one `AppendStream` that are taken but not answered; reading from
/// the stream stops at it.
pub const APPEND_STREAM_IN_FLIGHT_BATCHES_MAX: usize = 4096;

/// The proposer gathers what is waiting into one entry up to this size.
pub const ENTRY_BYTES_TARGET: usize = MIB;
/// Or up to this number of events.
pub const ENTRY_EVENTS_TARGET: usize = 4096;
/// One batch in the log's own encoding. It is mostly smaller than the message it
/// came in, but hashing makes a definition with short answers larger: hence
/// checked again after encoding.
pub const COMMAND_BYTES_MAX: usize = CLIENT_MESSAGE_BYTES_MAX;
/// An entry at most: a single batch above the target goes alone, with the
/// entry's header and its directory, which names every hunt once.
pub const ENTRY_BYTES_MAX: usize = COMMAND_BYTES_MAX + MIB;
/// While no place is free among the entries in flight, the proposer looks this
/// often whether a quorum still follows.
pub const QUORUM_CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// A leader that no quorum has acknowledged for this long refuses what waits.
pub const QUORUM_SILENCE_MAX: Duration = Duration::from_secs(1);
/// A follower that has not heard from its leader for this long takes it for gone:
/// elections without a quorum end nowhere, and leave the last leader standing.
pub const LEADER_SILENCE_MAX: Duration = Duration::from_secs(1);
/// A drained node that has not heard from any leader for this long stands for
/// election: nodes in service would have elected one of themselves by then.
pub const ASIDE_SILENCE_MAX: Duration = Duration::from_secs(3);
/// How often a follower looks whether it still hears from its leader.
pub const LEADER_CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// Entries the proposer has handed to Raft and that are not applied yet.
pub const ENTRIES_IN_FLIGHT_MAX: usize = 16;

// The largest append must be admissible, whatever else is in flight later.
const _: () = assert!(CLIENT_MESSAGE_BYTES_MAX <= IN_FLIGHT_BYTES_PER_CONNECTION_MAX);
const _: () = assert!(IN_FLIGHT_BYTES_PER_CONNECTION_MAX <= IN_FLIGHT_BYTES_MAX);
// What flow control lets a client send ahead does not exceed its share.
const _: () =
    assert!(CLIENT_CONNECTION_WINDOW_BYTES as usize <= IN_FLIGHT_BYTES_PER_CONNECTION_MAX);
const _: () = assert!(COMMAND_BYTES_MAX <= IN_FLIGHT_BYTES_PER_CONNECTION_MAX);
const _: () = assert!(ENTRY_BYTES_TARGET <= ENTRY_BYTES_MAX);
// The directory of an entry whose events each concern another hunt.
const _: () =
    assert!(BATCH_EVENTS_MAX * (ID_BYTES_MAX + 20) <= ENTRY_BYTES_MAX - COMMAND_BYTES_MAX);
const _: () = assert!(BATCH_EVENTS_MAX <= ENTRY_EVENTS_TARGET);
// The storage takes every entry there can be.
const _: () = assert!(ENTRY_BYTES_MAX <= huntlog_storage::limits::ENTRY_BYTES_MAX);
const _: () = assert!(APPEND_STREAM_IN_FLIGHT_BATCHES_MAX <= IN_FLIGHT_APPENDS_MAX);
const _: () = assert!(SESSION_IN_FLIGHT_BATCHES_MAX <= APPEND_STREAM_IN_FLIGHT_BATCHES_MAX);

// --- The log and its readers ------------------------------------------------

/// The tail of the log that stays readable in memory: what is applied and replicated
/// from there, and, of what is applied, what live subscribers and readers get.
pub const TAIL_CACHE_BYTES: usize = 32 * MIB;
/// Log bytes one read of the log returns; a larger single entry comes alone.
pub const LOG_READ_BYTES_MAX: usize = 2 * MIB;
/// Log entries one read of the log returns.
pub const LOG_READ_ENTRIES_MAX: u64 = 4096;

/// `Read` streams that are open on a node at once.
pub const READS_MAX: usize = 256;
/// What is prepared for all of them together.
pub const READ_BUFFERS_BYTES_MAX: usize = 128 * MIB;
/// `Read` and `Subscribe` streams that a node passes on from another at once: it
/// keeps less history than the other.
pub const FORWARDED_READS_MAX: usize = 128;
/// Flow-control window of one of them.
pub const FORWARDED_READ_WINDOW_BYTES: u32 = 256 * 1024;
/// And of all of them together: none has to wait for another's reader.
pub const FORWARDED_READS_WINDOW_BYTES: u32 = 32 * 1024 * 1024;
/// Events are sent to a reader in messages of about this size.
pub const READ_MESSAGE_BYTES_TARGET: usize = 256 * KIB;
/// A message to a reader at most: one event with its effects above the target.
pub const READ_MESSAGE_BYTES_MAX: usize = READ_MESSAGE_BYTES_TARGET + EVENT_BYTES_MAX + MIB;
/// Messages prepared for a reader ahead of its taking them.
pub const READ_MESSAGES_AHEAD_MAX: usize = 2;
/// Callers that wait for one read index; one call to the leader serves all.
pub const READ_INDEX_WAITERS_MAX: usize = 65_536;
/// One attempt at the leader's read index.
pub const READ_INDEX_TIMEOUT: Duration = Duration::from_secs(2);

/// Subscribers of a node.
pub const SUBSCRIBERS_MAX: usize = 4096;
/// What is prepared for one reader or subscriber and not yet sent.
pub const READER_BUFFER_BYTES_MAX: usize = MIB;
/// What is prepared for all subscribers of a node together.
pub const SUBSCRIBER_BUFFERS_BYTES_MAX: usize = 128 * MIB;
/// A reader or subscriber that takes nothing for this long is disconnected with
/// the offset to resume from.
pub const READER_STALL_MAX: Duration = Duration::from_secs(30);
/// A subscriber hears of its progress at least this often.
pub const SUBSCRIBE_PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

const _: () = assert!(
    FORWARDED_READS_MAX * FORWARDED_READ_WINDOW_BYTES as usize
        <= FORWARDED_READS_WINDOW_BYTES as usize
);
// What is being proposed, in entries of the usual size, can be replicated from memory.
const _: () = assert!(ENTRIES_IN_FLIGHT_MAX * ENTRY_BYTES_TARGET <= TAIL_CACHE_BYTES);
const _: () = assert!(READ_MESSAGE_BYTES_TARGET <= READER_BUFFER_BYTES_MAX);
const _: () = assert!(READER_BUFFER_BYTES_MAX <= SUBSCRIBER_BUFFERS_BYTES_MAX);
const _: () = assert!(READER_BUFFER_BYTES_MAX <= READ_BUFFERS_BYTES_MAX);
// Whatever is prepared ahead, in a half of each budget, there is room for the
// largest message in the other.
const _: () = assert!(READ_MESSAGE_BYTES_MAX <= SUBSCRIBER_BUFFERS_BYTES_MAX / 2);
const _: () = assert!(READ_MESSAGE_BYTES_MAX <= READ_BUFFERS_BYTES_MAX / 2);
// And there is for a message of the usual size to every reader.
const _: () = assert!(READS_MAX * READ_MESSAGE_BYTES_TARGET <= READ_BUFFERS_BYTES_MAX / 2);
// A client with tonic's default limit can read what we send.
const _: () = assert!(READ_MESSAGE_BYTES_MAX < 4 * MIB);

// --- Peers ------------------------------------------------------------------

/// Voters of a cluster; more only make every write wait for more disks.
pub const VOTERS_MAX: usize = 7;
/// Members of a cluster, learners included.
pub const MEMBERS_MAX: usize = 2 * VOTERS_MAX;
/// Ids of removed members that are kept one by one; of more the lowest are
/// forgotten, and every lower id counts as used.
pub const RETIRED_IDS_MAX: usize = 1024;
/// A learner that lacks more entries than this is not promoted: what it lacks
/// then holds up commits.
pub const PROMOTE_LAG_ENTRIES_MAX: u64 = 1_000;
/// A change of the members is answered within this time, done or not.
pub const MEMBER_CHANGE_TIMEOUT: Duration = Duration::from_secs(5);
/// Entry bytes of one AppendEntries message; a larger single entry goes alone.
pub const REPLICATION_BYTES_MAX: usize = LOG_READ_BYTES_MAX;
/// Entries of one AppendEntries message.
pub const REPLICATION_ENTRIES_MAX: u64 = LOG_READ_ENTRIES_MAX;
/// Entry bytes that a follower has taken from its leader's stream and not yet on
/// its disk; the rest waits with the leader.
pub const REPLICATION_IN_FLIGHT_BYTES_MAX: u32 = 32 * 1024 * 1024;
/// Connections on the peer port: a few from each member, and what a failing
/// network leaves behind until keepalive closes it.
pub const PEER_CONNECTIONS_MAX: usize = 256;
/// The largest message taken on the peer port.
pub const PEER_MESSAGE_BYTES_MAX: usize = REPLICATION_BYTES_MAX + ENTRY_BYTES_MAX + MIB;
/// Requests and streams of one peer connection that are open at once: every
/// unary append that a follower forwards is one.
pub const PEER_STREAMS_PER_CONNECTION_MAX: u32 = 65_536;
/// Requests of one peer connection that were given up before this node has looked
/// at them; with more of them it is closed. A leader gives up each heartbeat that is
/// not answered in time, so that a node that stood still for a second has more of
/// them than HTTP/2's usual 20, and would end the connection of a living leader.
pub const PEER_RESETS_PENDING_MAX: usize = 1024;
/// The shortest of Raft's timers that the configuration takes, in milliseconds.
pub const RAFT_TIMER_MIN_MS: u64 = 5;
/// Flow-control window of one stream on the peer port.
pub const PEER_STREAM_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// Flow-control window of one peer connection.
pub const PEER_CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
/// A new connection to a peer.
pub const PEER_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A silent peer is asked for a sign of life after this time: a replication
/// stream has no deadline of its own.
pub const PEER_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// And its connection is closed when it has not answered within this time.
pub const PEER_KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(2);
/// A replication stream that owes an answer is given up after one to two of
/// these without any.
pub const PEER_STREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(1);
/// One question of who is there.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(1);
/// The pause before a failed peer is tried again, at first.
pub const PEER_BACKOFF: Duration = Duration::from_millis(20);
/// How often that pause doubles while the peer stays away.
pub const PEER_BACKOFF_DOUBLINGS_MAX: u32 = 4;

/// Terms and log indexes of the peer protocol end here: no cluster lives long
/// enough, and arithmetic on what is below does not overflow.
pub const PEER_NUMBER_MAX: u64 = 1 << 62;
/// A peer's term may be ahead of this node's by this much: a thousand elections a
/// second for a month. A term is kept for ever, so one that is wrong would be too.
pub const TERM_AHEAD_MAX: u64 = 1 << 32;

/// One message of a snapshot stream.
pub const SNAPSHOT_CHUNK_BYTES: usize = 256 * KIB;
/// Snapshots being received at once, of all partitions.
pub const SNAPSHOT_INSTALLS_MAX: usize = 1;
/// A snapshot stream that brings nothing for this long is given up.
pub const SNAPSHOT_IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// A whole snapshot transfer; it fails much earlier when nothing moves.
pub const SNAPSHOT_TRANSFER_TIMEOUT: Duration = Duration::from_secs(3600);

/// A follower compares its digest with the leader's this often.
pub const DIGEST_COMPARISON_INTERVAL: Duration = Duration::from_secs(1);
/// Peers tell each other their clocks this often.
pub const CLOCK_EXCHANGE_INTERVAL: Duration = Duration::from_secs(1);
/// A peer's clock counts for this long after it was read.
pub const CLOCK_FRESH: Duration = Duration::from_secs(10);
/// A stamp never exceeds the voters' median clock by more than this, and a node
/// whose own clock is further off says so in its readiness.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(1);

const _: () = assert!(ENTRY_BYTES_MAX < PEER_MESSAGE_BYTES_MAX);
// While some are on their way to the disk there is room for the next ones; and
// they do not fill the storage's queue, which would stop Raft.
const _: () = assert!(4 * ENTRY_BYTES_MAX <= REPLICATION_IN_FLIGHT_BYTES_MAX as usize);
const _: () = assert!(
    2 * REPLICATION_IN_FLIGHT_BYTES_MAX as usize <= huntlog_storage::limits::QUEUE_BYTES_MAX
);
const _: () = assert!(PEER_STREAM_WINDOW_BYTES <= PEER_CONNECTION_WINDOW_BYTES);
// The shortest heartbeats, of a leader that has not given the connection up itself.
const _: () = assert!(
    (PEER_KEEPALIVE_INTERVAL.as_millis() + PEER_KEEPALIVE_TIMEOUT.as_millis())
        / (RAFT_TIMER_MIN_MS as u128)
        < PEER_RESETS_PENDING_MAX as u128
);
// A full message fits the window, or every one would cost an extra round trip.
const _: () = assert!(REPLICATION_BYTES_MAX < PEER_STREAM_WINDOW_BYTES as usize);
const _: () = assert!(SNAPSHOT_CHUNK_BYTES < PEER_MESSAGE_BYTES_MAX);
// Some answers may be lost before a clock stops counting.
const _: () = assert!(5 * CLOCK_EXCHANGE_INTERVAL.as_millis() <= CLOCK_FRESH.as_millis());
const _: () = assert!(SNAPSHOT_IDLE_TIMEOUT.as_millis() < SNAPSHOT_TRANSFER_TIMEOUT.as_millis());

// --- What a refused client is told ------------------------------------------

/// When to try again after `RESOURCE_EXHAUSTED`.
pub const RETRY_DELAY_OVERLOADED: Duration = Duration::from_millis(100);
/// When to try again while no leader is known: a fraction of an election.
pub const RETRY_DELAY_NO_LEADER: Duration = Duration::from_millis(50);
/// When to try again to open a session: one must become idle first.
pub const RETRY_DELAY_SESSIONS_FULL: Duration = Duration::from_secs(10);
/// Faulty fields, with what is wrong with them, that one answer names: details
/// travel in headers, and clients take 8 KiB of those.
pub const FAULT_DETAILS_BYTES_MAX: usize = 2 * KIB;
/// The path or the words of one fault, which may quote the request.
pub const FAULT_TEXT_BYTES_MAX: usize = 256;
/// When to try again on a node that is starting or stopping; another node can
/// be tried at once.
pub const RETRY_DELAY_UNAVAILABLE: Duration = Duration::from_millis(200);

// --- The end of a node's life -----------------------------------------------

/// A leader that hands over waits this long for what is in flight, and holds back
/// new appends meanwhile.
pub const HELD_APPENDS_WAIT_MAX: Duration = Duration::from_secs(1);
/// And then this long for another to take over.
pub const LEADER_TRANSFER_TIMEOUT: Duration = Duration::from_secs(2);
/// Requests in flight have this long to be answered when the node stops.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

const _: () = assert!(LEADER_SILENCE_MAX.as_millis() < ASIDE_SILENCE_MAX.as_millis());

// What is held back is answered in time, whoever takes over.
const _: () = assert!(
    HELD_APPENDS_WAIT_MAX.as_millis() + LEADER_TRANSFER_TIMEOUT.as_millis()
        < REQUEST_DEADLINE_DEFAULT.as_millis()
);
const _: () = assert!(
    HELD_APPENDS_WAIT_MAX.as_millis() + LEADER_TRANSFER_TIMEOUT.as_millis()
        < MEMBER_CHANGE_TIMEOUT.as_millis()
);

// --- The admin port ---------------------------------------------------------

/// Connections on the admin port; the next one waits in the kernel's backlog.
pub const ADMIN_CONNECTIONS_MAX: usize = 64;
/// An admin connection without an answer for this long is closed.
pub const ADMIN_IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// Open admin requests have this long to end when the node stops.
pub const ADMIN_DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

// --- The disk ---------------------------------------------------------------

/// What the retention says is looked at this often.
pub const RETENTION_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// The least that a retention by size keeps: two segments.
pub const RETENTION_BYTES_MIN: u64 = 128 << 20;
/// With less than this free, the node warns: some minutes of a busy log.
pub const DISK_FREE_BYTES_WARNING: u64 = 1 << 30;

/// A scrub reads sealed segments at this pace, beside what the log and its
/// readers need: a terabyte in a day and a half.
pub const SCRUB_BYTES_PER_SECOND: u64 = 8 << 20;
/// The first pass begins this long after the node's start.
pub const SCRUB_START_DELAY: Duration = Duration::from_secs(10);
/// And each of the others this long after the one before has ended.
pub const SCRUB_PAUSE: Duration = Duration::from_secs(24 * 60 * 60);

const _: () = assert!(huntlog_storage::limits::SCRUB_STEP_BYTES < SCRUB_BYTES_PER_SECOND);

// --- Configuration ----------------------------------------------------------

/// A configuration file.
pub const CONFIG_FILE_BYTES_MAX: usize = MIB;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_s_batches_in_flight_are_those_the_machine_keeps_results_for() {
        let machine = huntlog_machine::Limits::default();
        assert_eq!(
            SESSION_IN_FLIGHT_BATCHES_MAX,
            machine.max_in_flight as usize
        );
        assert!(machine.max_in_flight <= machine.results_per_session);
    }
}
