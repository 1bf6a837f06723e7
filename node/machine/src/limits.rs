//! What bounds the machine's tables.

/// Bounds of the replicated state.
///
/// They decide outcomes, so they belong to the log version: every replica, and
/// every release that reads this log version, must use the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Sessions kept. At the limit, opening one forgets the one idle longest,
    /// if it is idle for [`evictable_idle_ms`](Self::evictable_idle_ms).
    pub max_sessions: u32,
    /// A session unused for this much log time is forgotten.
    pub session_idle_ms: u64,
    /// A session idle for less than this is not forgotten to make room.
    pub evictable_idle_ms: u64,
    /// The most by which idleness grows between two entries, whatever the
    /// difference of their times: a jump of the clock or a week's outage
    /// expires nobody.
    pub idle_step_ms_max: u64,
    /// Idle sessions forgotten per entry, so that no entry stalls the log.
    pub forgotten_per_entry_max: u32,
    /// Memory for the results of applied batches, over all sessions. The oldest
    /// are dropped first.
    pub result_budget_bytes: u64,
    /// Results kept per session.
    pub results_per_session: u32,
    /// The encoded size up to which a session's last result is kept for as long
    /// as the session, whatever the budget.
    pub last_result_bytes_max: usize,
    /// Batches of one session that may be under way at once. The machine itself
    /// does not need it: sequence numbers order them.
    pub max_in_flight: u32,
    /// Digests of the latest entries kept for comparison.
    pub digests_kept: u32,
    /// Hunts that may be created, over the partition's whole life: they are
    /// kept for ever.
    pub hunts_max: u32,
    /// Players that may register for one hunt, whatever its definition says.
    pub players_per_hunt_max: u32,
}

/// How many of the limits decide outcomes, and have a number in snapshots.
pub(crate) const NUMBERED: usize = 11;

impl Limits {
    /// Those of this log version.
    pub const DEFAULT: Self = Self {
        max_sessions: 1_000_000,
        session_idle_ms: 7 * 24 * 60 * 60 * 1_000,
        evictable_idle_ms: 60 * 60 * 1_000,
        idle_step_ms_max: 10_000,
        forgotten_per_entry_max: 1_024,
        result_budget_bytes: 64 << 20,
        results_per_session: 64,
        last_result_bytes_max: 64,
        max_in_flight: 32,
        digests_kept: 65_536,
        hunts_max: 100_000,
        players_per_hunt_max: 1_000_000,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

const _: () = {
    let limits = Limits::DEFAULT;
    // A retry of everything a session has under way finds its results.
    assert!(limits.max_in_flight <= limits.results_per_session);
    // A session makes room for others before it is forgotten by itself.
    assert!(limits.evictable_idle_ms < limits.session_idle_ms);
    // No single jump of the clock makes a session idle enough for either.
    assert!(limits.idle_step_ms_max < limits.evictable_idle_ms);
};

/// The most clues of a hunt.
pub const CLUES_MAX: usize = 4_096;
/// The most treasures of a hunt.
pub const TREASURES_MAX: usize = 4_096;
/// The most hints of a clue.
pub const HINTS_PER_CLUE_MAX: usize = 256;
/// The longest id of a clue, a hint or a treasure.
pub const ID_BYTES_MAX: usize = 128;
