//! The model: everything remembered for ever, in lists, decided the long way.

use super::acts::definition;
use super::limits;
use huntlog_machine::HuntState::{Cancelled, Draft, Finished, Open, Paused, Running};
use huntlog_machine::{Batch, Event, EventKind, HuntState, Machine, PlayerStatus};
use std::collections::HashMap;

#[derive(Default, Clone)]
pub struct Model {
    pub sessions: HashMap<&'static str, ModelSession>,
    pub hunts: HashMap<String, ModelHunt>,
    /// The feature level in force.
    pub level: u32,
    offset: u64,
    time_ms: u64,
}

#[derive(Default, Clone)]
pub struct ModelSession {
    pub epochs: Vec<u64>,
    nonce: u8,
    fresh: bool,
    /// Every batch ever: body, result lines, entry, time.
    pub batches: Vec<(Batch, Vec<String>, u64, u64)>,
}

#[derive(Clone)]
pub struct ModelHunt {
    state: HuntState,
    pub revision: u64,
    entries: Vec<u64>,
    players: Vec<ModelPlayer>,
    claims: Vec<(String, String)>,
}

#[derive(Clone)]
pub struct ModelPlayer {
    id: String,
    status: PlayerStatus,
    solved: Vec<(String, u64)>,
    attempts: Vec<String>,
    points: u64,
    hint: bool,
}

impl ModelPlayer {
    fn has(&self, clue: &str) -> bool {
        self.solved.iter().any(|(solved, _)| solved == clue)
    }

    fn open(&self) -> Vec<String> {
        let definition = definition();
        let open = definition.clues.iter().filter(|clue| {
            !self.has(&clue.id) && clue.requires.iter().all(|required| self.has(required))
        });
        open.map(|clue| clue.id.clone()).collect()
    }
}

impl Model {
    pub fn clock(&mut self, stamp_ms: u64, entry: u64) -> Vec<String> {
        self.time_ms = self.time_ms.max(stamp_ms);
        let mut due = Vec::new();
        for (id, hunt) in &self.hunts {
            let mut state = hunt.state;
            if matches!(state, Draft | Open) && self.time_ms >= 40_000 {
                due.push((40_000, id.clone(), Running));
                state = Running;
            }
            if matches!(state, Running | Paused) && self.time_ms >= 90_000 {
                due.push((90_000, id.clone(), Finished));
            }
        }
        due.sort();
        let mut lines = Vec::new();
        for (_, id, to) in due {
            let hunt = self.hunts.get_mut(&id).unwrap();
            hunt.revision += 1;
            if hunt.entries.last() != Some(&entry) {
                hunt.entries.push(entry);
            }
            lines.push(format!(
                "@{} r{} {}->{}",
                self.offset,
                hunt.revision,
                hunt.state.name(),
                to.name()
            ));
            hunt.state = to;
            self.offset += 1;
        }
        lines
    }

    /// The epoch that the session had so many openings ago; 0 when there was none.
    pub fn epoch(&self, session: &str, back: usize) -> u64 {
        let epochs = self.sessions.get(session).map(|state| &state.epochs);
        let epoch = epochs.and_then(|epochs| epochs.iter().rev().nth(back));
        epoch.copied().unwrap_or_default()
    }

    pub fn open(&mut self, session: &'static str, nonce: u8, from: u64, entry: u64) -> String {
        let known = self.sessions.contains_key(session);
        let state = self.sessions.entry(session).or_default();
        if !known || state.nonce != nonce {
            if let Some(&current) = state.epochs.last()
                && from != 0
                && from != current
            {
                return format!("refused Fenced {{ epoch: {from}, current: {current} }}");
            }
            if state.epochs.last() == Some(&entry) {
                return "refused Contended".into();
            }
            state.epochs.push(entry);
            state.nonce = nonce;
            state.fresh = state.batches.is_empty();
        }
        format!(
            "opened epoch={} last_sequence={} fresh={}",
            state.epochs.last().unwrap(),
            state.batches.len(),
            state.fresh
        )
    }

    pub fn batch(&mut self, batch: &Batch, entry: u64) -> Vec<String> {
        let refused = |reason: String| vec![format!("refused {reason}")];
        let Some(session) = self.sessions.get(batch.session.as_str()) else {
            return refused("SessionUnknown".into());
        };
        let epoch = *session.epochs.last().unwrap();
        let last = session.batches.len() as u64;
        if batch.epoch < epoch {
            return refused(format!(
                "Fenced {{ epoch: {epoch}, actual: {} }}",
                batch.epoch
            ));
        }
        if batch.epoch > epoch {
            return refused("SessionUnknown".into());
        }
        let sequence = batch.sequence;
        if sequence == 0 || sequence > last + 1 {
            let expected = last + 1;
            return refused(format!(
                "SequenceGap {{ expected: {expected}, actual: {sequence} }}"
            ));
        }
        if sequence <= last {
            let (first, lines, entry, time_ms) = &session.batches[sequence as usize - 1];
            if last - sequence >= u64::from(limits().results_per_session) {
                return vec!["duplicate, outcome not kept".into()];
            }
            if (&first.events, &first.expected) != (&batch.events, &batch.expected) {
                return refused(format!("PayloadMismatch {{ sequence: {sequence} }}"));
            }
            let mut lines = lines.clone();
            if lines[0] == "applied" {
                lines[0] = format!("duplicate of entry {entry} at {time_ms}");
            }
            return lines;
        }
        let lines = self.apply(batch, entry);
        let session = self.sessions.get_mut(batch.session.as_str()).unwrap();
        session
            .batches
            .push((batch.clone(), lines.clone(), entry, self.time_ms));
        lines
    }

    fn apply(&mut self, batch: &Batch, entry: u64) -> Vec<String> {
        for (hunt, expected) in &batch.expected {
            let actual = self.hunts.get(hunt).map_or(0, |hunt| hunt.revision);
            if actual != expected.revision() {
                return vec![format!(
                    "refused RevisionMismatch {{ hunt: {hunt:?}, expected: {expected:?}, actual: {actual} }}"
                )];
            }
        }
        let mut lines = vec!["applied".to_owned()];
        for event in &batch.events {
            let line = match self.event(event) {
                Err(reason) => format!("  rejected {reason}"),
                Ok(effects) => {
                    let hunt = self.hunts.get_mut(&event.hunt).unwrap();
                    hunt.revision += 1;
                    if hunt.entries.last() != Some(&entry) {
                        hunt.entries.push(entry);
                    }
                    self.offset += 1;
                    let place = format!("  @{} r{}", self.offset - 1, hunt.revision);
                    format!("{place} {}", effects.join(", "))
                        .trim_end()
                        .to_owned()
                }
            };
            lines.push(line);
        }
        lines
    }

    fn event(&mut self, event: &Event) -> Result<Vec<String>, &'static str> {
        let offset = self.offset;
        if let EventKind::HuntCreated(definition) = &event.kind {
            if self.hunts.contains_key(&event.hunt) {
                return Err("HUNT_EXISTS");
            }
            if definition.clues.is_empty() {
                return Err("DEFINITION_INVALID");
            }
            self.hunts.insert(
                event.hunt.clone(),
                ModelHunt {
                    state: Draft,
                    revision: 0,
                    entries: Vec::new(),
                    players: Vec::new(),
                    claims: Vec::new(),
                },
            );
            return Ok(Vec::new());
        }
        let hunt = self.hunts.get_mut(&event.hunt).ok_or("HUNT_UNKNOWN")?;
        if matches!(hunt.state, Finished | Cancelled) {
            return Err("HUNT_OVER");
        }
        let next = match (&event.kind, hunt.state) {
            (EventKind::HuntOpened, Draft) => Some(Open),
            (EventKind::HuntStarted, Draft | Open) => Some(Running),
            (EventKind::HuntPaused, Running) => Some(Paused),
            (EventKind::HuntResumed, Paused) => Some(Running),
            (EventKind::HuntFinished, Running | Paused) => Some(Finished),
            (EventKind::HuntCancelled { .. }, _) => Some(Cancelled),
            (
                EventKind::HuntOpened
                | EventKind::HuntStarted
                | EventKind::HuntPaused
                | EventKind::HuntResumed
                | EventKind::HuntFinished,
                _,
            ) => return Err("ILLEGAL_TRANSITION"),
            _ => None,
        };
        if let Some(next) = next {
            let effect = format!("{}->{}", hunt.state.name(), next.name());
            hunt.state = next;
            return Ok(vec![effect]);
        }
        let running = hunt.state == Running;
        let known = hunt
            .players
            .iter()
            .position(|player| player.id == event.player);
        let status = known.map(|known| hunt.players[known].status);
        let gone = match status {
            Some(PlayerStatus::Withdrawn) => Some("PLAYER_WITHDRAWN"),
            Some(PlayerStatus::Disqualified) => Some("PLAYER_DISQUALIFIED"),
            _ => None,
        };
        match &event.kind {
            EventKind::PlayerRegistered { .. } => {
                if hunt.state == Draft {
                    return Err("REGISTRATION_CLOSED");
                }
                if known.is_some() {
                    return Err(gone.unwrap_or("PLAYER_EXISTS"));
                }
                if hunt.players.len() == 3 {
                    return Err("HUNT_FULL");
                }
                hunt.players.push(ModelPlayer {
                    id: event.player.clone(),
                    status: PlayerStatus::Active,
                    solved: Vec::new(),
                    attempts: Vec::new(),
                    points: 0,
                    hint: false,
                });
                return Ok(Vec::new());
            }
            EventKind::PlayerWithdrawn => {
                let known = known.ok_or("PLAYER_UNKNOWN")?;
                if let Some(gone) = gone {
                    return Err(gone);
                }
                hunt.players[known].status = PlayerStatus::Withdrawn;
                return Ok(Vec::new());
            }
            EventKind::PlayerDisqualified { .. } => {
                let player = &mut hunt.players[known.ok_or("PLAYER_UNKNOWN")?];
                if player.status == PlayerStatus::Disqualified {
                    return Err("PLAYER_DISQUALIFIED");
                }
                player.status = PlayerStatus::Disqualified;
                return Ok(Vec::new());
            }
            EventKind::Custom { .. } => return Ok(Vec::new()),
            EventKind::Announced { clue, .. } => {
                return match clue.as_str() {
                    "nowhere" => Err("CLUE_UNKNOWN"),
                    _ => Ok(Vec::new()),
                };
            }
            _ => {}
        }
        if !running {
            return Err("HUNT_NOT_RUNNING");
        }
        let known = known.ok_or("PLAYER_UNKNOWN")?;
        if let Some(gone) = gone {
            return Err(gone);
        }
        let others: Vec<_> = hunt.players.clone();
        let player = &mut hunt.players[known];
        match &event.kind {
            EventKind::ClueAttempted { clue, answer } => {
                if clue == "nowhere" {
                    return Err("CLUE_UNKNOWN");
                }
                if player.has(clue) {
                    return Err("CLUE_SOLVED");
                }
                if !player.open().contains(clue) {
                    return Err("CLUE_LOCKED");
                }
                let attempts = player.attempts.iter().filter(|a| *a == clue).count();
                if clue == "c" && attempts == 2 {
                    return Err("ATTEMPTS_EXHAUSTED");
                }
                player.attempts.push(clue.clone());
                if answer != clue {
                    return Ok(vec![format!("{clue} wrong")]);
                }
                let before = player.open();
                player.solved.push((clue.clone(), offset));
                player.points += 10;
                let rank = 1 + others.iter().filter(|other| other.has(clue)).count();
                let mut effects = vec![format!("{clue} solved #{rank} +10")];
                for open in player.open() {
                    if !before.contains(&open) {
                        effects.push(format!("{open} unlocked"));
                    }
                }
                if player.solved.len() == 4 {
                    let rank = 1 + others
                        .iter()
                        .filter(|other| other.solved.len() == 4)
                        .count();
                    effects.push(format!("hunt won #{rank}"));
                }
                Ok(effects)
            }
            EventKind::TreasureClaimed { treasure } => {
                let limit = match treasure.as_str() {
                    "gold" => 2,
                    "tin" => 1,
                    _ => return Err("TREASURE_UNKNOWN"),
                };
                let claim = (treasure.clone(), event.player.clone());
                if hunt.claims.contains(&claim) {
                    return Err("TREASURE_ALREADY_WON");
                }
                if treasure == "gold" && !player.has("a") {
                    return Err("TREASURE_LOCKED");
                }
                let won = hunt.claims.iter().filter(|(t, _)| t == treasure).count();
                if won == limit {
                    return Err("TREASURE_EXHAUSTED");
                }
                player.points += 5;
                hunt.claims.push(claim);
                Ok(vec![format!("{treasure} won #{} +5", won + 1)])
            }
            EventKind::HintTaken { clue, hint } => {
                if clue == "nowhere" {
                    return Err("CLUE_UNKNOWN");
                }
                if clue != "a" || hint != "look" {
                    return Err("HINT_UNKNOWN");
                }
                if player.has("a") {
                    return Err("CLUE_SOLVED");
                }
                if player.hint {
                    return Err("HINT_ALREADY_TAKEN");
                }
                player.hint = true;
                let cost = player.points.min(4);
                player.points -= cost;
                Ok(vec![format!("a/look revealed -{cost}")])
            }
            _ => unreachable!(),
        }
    }

    /// Everything that can be asked, compared.
    pub fn compare(&self, machine: &Machine) {
        assert_eq!(machine.end_offset(), self.offset, "I5");
        assert_eq!(machine.time_ms(), self.time_ms);
        assert_eq!(machine.hunt_count(), self.hunts.len() as u64);
        let sessions = machine.sessions(None, 10).map(|session| {
            let model = &self.sessions[session.name];
            assert_eq!(session.epoch, *model.epochs.last().unwrap());
            assert_eq!(session.last_sequence, model.batches.len() as u64);
        });
        assert_eq!(sessions.count(), self.sessions.len());
        for (id, model) in &self.hunts {
            let hunt = machine.hunt(id).expect("it was created");
            assert_eq!(hunt.state(), model.state);
            assert_eq!(hunt.revision(), model.revision, "I5");
            assert!(
                hunt.entries()
                    .iter_from(0)
                    .eq(model.entries.iter().copied())
            );
            for stats in hunt.clue_stats() {
                let solves = model.players.iter().filter(|p| p.has(stats.clue)).count();
                let attempts = model.players.iter().flat_map(|p| &p.attempts);
                let attempts = attempts.filter(|clue| *clue == stats.clue).count();
                assert_eq!(
                    (stats.solves, stats.attempts),
                    (solves as u64, attempts as u64)
                );
            }
            for stats in hunt.treasure_stats() {
                let won = model.claims.iter().filter(|(t, _)| t == stats.treasure);
                let winners: Vec<_> = won.map(|(_, player)| player.as_str()).collect();
                assert_eq!(stats.winners, winners, "I8");
                assert!(stats.winners.len() <= stats.limit as usize, "I8");
            }
            let mut board: Vec<_> = model
                .players
                .iter()
                .enumerate()
                .filter(|(_, player)| player.status == PlayerStatus::Active)
                .map(|(registration, player)| {
                    let last = player.solved.last().map_or(u64::MAX, |(_, offset)| *offset);
                    (u64::MAX - player.points, last, registration, player)
                })
                .collect();
            board.sort_by_key(|(points, last, registration, _)| (*points, *last, *registration));
            let rows = hunt.scoreboard(0, 100);
            assert_eq!(rows.total, board.len() as u64);
            for (position, (row, (_, last, _, model))) in rows.rows.iter().zip(&board).enumerate() {
                assert_eq!(row.rank, position as u64 + 1);
                assert_eq!((row.player, row.points), (model.id.as_str(), model.points));
                assert_eq!(row.solved as usize, model.solved.len());
                assert_eq!(row.last_solve.map_or(u64::MAX, |solve| solve.offset), *last);
                let player = hunt.player(&model.id).expect("it is on the board");
                assert_eq!(player.row().as_ref(), Some(row));
                assert!(player.open_clues().eq(model.open()));
            }
            assert_eq!(rows.rows.len(), board.len());
        }
    }
}
