//! The replicated state, and what can be asked of it.

use crate::level::FIRST_LEVEL;
use crate::names::Names;
use crate::sessions::{SessionInfo, Sessions};
use crate::{
    Digest, DigestCheck, EntryIndex, Hunt, Limits, LogId, PlayerRef, Scoreboard, ScoreboardRow,
};
use imbl::{OrdMap, OrdSet, Vector};
use std::ops::Bound;
use std::sync::Arc;

/// The state as of one log index. A clone costs next to nothing and shares what
/// does not change, so it can be taken between two entries and read, or written
/// to a snapshot, on another thread.
#[derive(Debug, Clone)]
pub struct View {
    pub(crate) partition: u32,
    /// The feature level in force.
    pub(crate) level: u32,
    pub(crate) last_applied: Option<LogId>,
    pub(crate) time_ms: u64,
    pub(crate) end_offset: u64,
    pub(crate) hunts: Hunts,
    pub(crate) sessions: Sessions,
    pub(crate) digests: Digests,
    /// They decide what comes next, so they are part of the state.
    pub(crate) limits: Limits,
}

impl View {
    pub(crate) fn new(partition: u32, limits: Limits) -> Self {
        Self {
            partition,
            level: FIRST_LEVEL,
            last_applied: None,
            time_ms: 0,
            end_offset: 0,
            hunts: Hunts::default(),
            sessions: Sessions::default(),
            digests: Digests::default(),
            limits,
        }
    }

    /// The bounds it is kept under.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The partition it belongs to.
    #[must_use]
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// The feature level in force: what the log may hold from here on.
    #[must_use]
    pub fn level(&self) -> u32 {
        self.level
    }

    /// The last log entry applied.
    #[must_use]
    pub fn last_applied(&self) -> Option<LogId> {
        self.last_applied
    }

    /// One past the last accepted event.
    #[must_use]
    pub fn end_offset(&self) -> u64 {
        self.end_offset
    }

    /// The log's time, milliseconds since 1970; 0 before the first entry.
    #[must_use]
    pub fn time_ms(&self) -> u64 {
        self.time_ms
    }

    /// The digest after the last applied entry.
    #[must_use]
    pub fn digest(&self) -> Option<DigestCheck> {
        let index = self.last_applied?.index;
        let digest = self.digest_at(index)?;
        Some(DigestCheck { index, digest })
    }

    /// The digest after one of the last 65,536 entries.
    #[must_use]
    pub fn digest_at(&self, index: u64) -> Option<Digest> {
        self.digests.at(index)
    }

    /// When the clock will next change a hunt, milliseconds since 1970. Once
    /// the proposer's clock has passed it, a tick is due.
    #[must_use]
    pub fn next_due_ms(&self) -> Option<u64> {
        self.hunts.due.get_min().map(|(due_ms, _)| *due_ms)
    }

    /// How many sessions are known.
    #[must_use]
    pub fn session_count(&self) -> u64 {
        self.sessions.len() as u64
    }

    /// How many hunts there are.
    #[must_use]
    pub fn hunt_count(&self) -> u64 {
        self.hunts.slots.len() as u64
    }

    /// One hunt.
    #[must_use]
    pub fn hunt(&self, id: &str) -> Option<&Hunt> {
        self.hunts.get(id)
    }

    /// Hunts by id: at most `limit` after the one given.
    pub fn hunts(&self, after: Option<&str>, limit: usize) -> impl Iterator<Item = &Hunt> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.hunts
            .by_id
            .range::<_, str>((from, Bound::Unbounded))
            .take(limit)
            .map(|(_, slot)| self.hunts.at(*slot))
    }

    /// One player of a hunt.
    #[must_use]
    pub fn player(&self, hunt: &str, player: &str) -> Option<PlayerRef<'_>> {
        self.hunt(hunt)?.player(player)
    }

    /// Rows of a hunt's scoreboard: at most `limit` after the first `skip`.
    #[must_use]
    pub fn scoreboard(&self, hunt: &str, skip: u64, limit: usize) -> Option<Scoreboard<'_>> {
        Some(self.hunt(hunt)?.scoreboard(skip, limit))
    }

    /// One player's place on a hunt's scoreboard, without a scan.
    #[must_use]
    pub fn rank(&self, hunt: &str, player: &str) -> Option<ScoreboardRow<'_>> {
        self.player(hunt, player)?.row()
    }

    /// One session.
    #[must_use]
    pub fn session(&self, name: &str) -> Option<SessionInfo<'_>> {
        self.sessions.get(name)
    }

    /// Sessions by name: at most `limit` after the one given.
    pub fn sessions(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> impl Iterator<Item = SessionInfo<'_>> {
        self.sessions.after(after).take(limit)
    }

    /// The log indexes of the entries that added events to a hunt.
    #[must_use]
    pub fn hunt_entries(&self, hunt: &str) -> Option<&EntryIndex> {
        Some(self.hunt(hunt)?.entries())
    }
}

/// All hunts, in the order of their creation, and by id.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hunts {
    by_id: OrdMap<Arc<str>, u32>,
    slots: Vector<Arc<Hunt>>,
    /// What the clock will do, soonest first: time and hunt.
    due: OrdSet<(u64, Arc<str>)>,
}

impl Hunts {
    pub(crate) fn slot(&self, id: &str) -> Option<u32> {
        self.by_id.get(id).copied()
    }

    pub(crate) fn get(&self, id: &str) -> Option<&Hunt> {
        Some(self.at(self.slot(id)?))
    }

    pub(crate) fn at(&self, slot: u32) -> &Hunt {
        &self.slots[slot as usize]
    }

    pub(crate) fn id(&self, slot: u32) -> &str {
        &self.at(slot).id
    }

    /// The slot of each hunt by its id, for whoever asks often.
    pub(crate) fn names(&self) -> Names {
        let count = u32::try_from(self.slots.len()).expect("fewer than 2^32 hunts");
        Names::of(count, |slot| self.id(slot))
    }

    /// Changes a hunt, and what the clock has to do with it.
    pub(crate) fn change<T>(&mut self, slot: u32, change: impl FnOnce(&mut Hunt) -> T) -> T {
        let hunt = Arc::make_mut(&mut self.slots[slot as usize]);
        let before = hunt.state;
        let due_before = hunt.due();
        let result = change(hunt);
        if hunt.state != before {
            let id = Arc::clone(&hunt.id);
            let due = hunt.due();
            if let Some((due_ms, _)) = due_before {
                self.due.remove(&(due_ms, Arc::clone(&id)));
            }
            if let Some((due_ms, _)) = due {
                self.due.insert((due_ms, id));
            }
        }
        result
    }

    /// # Panics
    /// Above 2^32 hunts.
    pub(crate) fn add(&mut self, hunt: Hunt) -> u32 {
        let slot = u32::try_from(self.slots.len()).expect("fewer than 2^32 hunts");
        let id = Arc::clone(&hunt.id);
        if let Some((due_ms, _)) = hunt.due() {
            self.due.insert((due_ms, Arc::clone(&id)));
        }
        self.by_id.insert(id, slot);
        self.slots.push_back(Arc::new(hunt));
        slot
    }

    /// The hunt that is due first, if that is not after `now_ms`.
    pub(crate) fn first_due(&self, now_ms: u64) -> Option<u32> {
        let (due_ms, id) = self.due.get_min()?;
        (*due_ms <= now_ms).then(|| self.by_id[id])
    }

    /// In the order of their creation, for snapshots.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Hunt>> {
        self.slots.iter()
    }
}

/// The digests after the latest entries.
#[derive(Debug, Clone, Default)]
pub(crate) struct Digests {
    /// The log index of the first.
    pub(crate) first: u64,
    pub(crate) list: Vector<Digest>,
}

impl Digests {
    pub(crate) fn at(&self, index: u64) -> Option<Digest> {
        let position = usize::try_from(index.checked_sub(self.first)?).ok()?;
        self.list.get(position).copied()
    }

    pub(crate) fn last(&self) -> Digest {
        self.list.last().copied().unwrap_or_default()
    }

    pub(crate) fn push(&mut self, index: u64, digest: Digest, kept: u32) {
        if self.list.is_empty() {
            self.first = index;
        }
        self.list.push_back(digest);
        while self.list.len() > kept.max(1) as usize {
            self.list.pop_front();
            self.first += 1;
        }
    }
}
