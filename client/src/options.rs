//! What a program may set about a client and its sessions.

use std::time::Duration;

use crate::dialer::Dialer;

/// Settings of a [`Client`](crate::Client).
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// The partition all calls are for.
    pub partition: u32,
    /// How many connections carry the appends. Sessions are spread over them
    /// by name; thousands share one. At least 1.
    pub connections: usize,
    /// How long a call, or a batch, may take over all its attempts; 30 minutes
    /// at most.
    pub timeout: Duration,
    /// How long connecting to one node may take.
    pub connect_timeout: Duration,
    /// How long a node may leave an append or a stream without any answer
    /// before another is tried; an open stream of events at least three seconds.
    /// One that leaves appends without any answer for 300 ms is left at once when
    /// the others name another leader.
    pub answer_timeout: Duration,
    /// Bytes of events taken from the program and not yet resolved; past it,
    /// appending waits. At least one batch (4 MiB).
    pub max_buffered_bytes: usize,
    /// Whether to learn the cluster's other nodes and go to the leader. When
    /// false, only the endpoints given are ever used, which is how one node's
    /// own answers are read.
    pub follow_leader: bool,
    /// Seeds jitter and nonces, so that a simulation repeats. Unset: from the
    /// operating system. Two clients of one cluster must not share a seed.
    pub seed: Option<u64>,
    /// Makes the connections; unset: plain TCP.
    pub dialer: Option<Dialer>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            partition: 0,
            connections: 1,
            timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(1),
            answer_timeout: Duration::from_secs(5),
            max_buffered_bytes: 32 << 20,
            follow_leader: true,
            seed: None,
            dialer: None,
        }
    }
}

/// Settings of one session's [`Producer`](crate::Producer).
#[derive(Debug, Clone)]
pub struct SessionOptions {
    /// How long single events wait for company while an earlier batch of the
    /// session is under way. An event of an idle session never waits.
    pub linger: Duration,
    /// Single events are sent together up to this many.
    pub max_batch_events: usize,
    /// Single events are sent together up to this many bytes.
    pub max_batch_bytes: usize,
    /// How long a batch may take over all its attempts, 30 minutes at most;
    /// unset: the client's.
    pub timeout: Option<Duration>,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            linger: Duration::from_millis(1),
            max_batch_events: 512,
            max_batch_bytes: 256 << 10,
            timeout: None,
        }
    }
}
