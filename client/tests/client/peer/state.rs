//! Sessions and the log, as the contract has them, and the faults to come.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use huntlog_client::proto;
use prost::Message;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tonic::Code;

use super::hunt::Hunts;

/// What happens to one append.
#[derive(Debug, Clone)]
pub enum Fault {
    /// It is applied, and the stream breaks before the answer.
    LoseAnswer,
    /// The stream breaks before it is applied.
    LoseRequest,
    /// It is applied and never answered, while the stream stays.
    Silence,
    /// This answer, after it was applied or not.
    Refuse { failure: Failure, applied: bool },
}

/// A failure, whether it is told in band or in a status.
#[derive(Debug, Clone)]
pub struct Failure {
    pub code: Code,
    pub reason: &'static str,
    pub not_applied: bool,
    pub retry_after: Option<Duration>,
    pub metadata: Vec<(&'static str, String)>,
}

/// A refusal for this reason.
pub fn refuse(reason: &'static str, not_applied: bool) -> Fault {
    Fault::Refuse {
        applied: !not_applied,
        failure: failure(Code::Unavailable, reason, not_applied),
    }
}

pub fn failure(code: Code, reason: &'static str, not_applied: bool) -> Failure {
    let retry = matches!(code, Code::Unavailable | Code::ResourceExhausted);
    Failure {
        code,
        reason,
        not_applied,
        retry_after: retry.then_some(Duration::from_millis(1)),
        metadata: Vec::new(),
    }
}

/// How a node's own copy differs from the log.
#[derive(Debug, Clone, Copy)]
pub enum Tamper {
    /// The last event is missing.
    Truncated,
    /// The event at this offset has another player.
    Changed(u64),
    /// This event is there a second time, at the end.
    Repeated(u64),
}

#[derive(Debug, Default)]
struct Session {
    epoch: u64,
    nonce: Vec<u8>,
    last_sequence: u64,
    results: BTreeMap<u64, (Vec<u8>, Result<proto::AppendResponse, Failure>)>,
}

pub struct State {
    pub leader: Option<usize>,
    pub log: Vec<proto::CommittedEvent>,
    pub hunts: Hunts,
    /// For the appends to come, one each.
    pub faults: VecDeque<Option<Fault>>,
    /// Faults by chance, in this share of appends.
    pub chaos: Option<(StdRng, f64)>,
    /// Answers are held back until this is false again.
    pub hold: bool,
    /// Every read and subscription breaks off after so many events.
    pub break_reads_after: Option<usize>,
    /// Results kept of a session.
    pub results_kept: usize,
    pub tampered: HashMap<usize, Tamper>,
    /// Appends received and not answered, by session, at most so far.
    pub unanswered: HashMap<String, usize>,
    pub unanswered_max: usize,
    /// The same of all sessions together.
    pub unanswered_total_max: usize,
    /// Appends received, by node.
    pub received: HashMap<usize, u64>,
    pub connections: usize,
    sessions: BTreeMap<String, Session>,
    index: u64,
}

impl State {
    pub fn new() -> Self {
        Self {
            leader: Some(0),
            log: Vec::new(),
            hunts: Hunts::default(),
            faults: VecDeque::new(),
            chaos: None,
            hold: false,
            break_reads_after: None,
            results_kept: 64,
            tampered: HashMap::new(),
            unanswered: HashMap::new(),
            unanswered_max: 0,
            unanswered_total_max: 0,
            received: HashMap::new(),
            connections: 0,
            sessions: BTreeMap::new(),
            index: 0,
        }
    }

    pub fn unanswered_total(&self) -> usize {
        self.unanswered.values().sum()
    }

    pub fn log_index(&self) -> u64 {
        self.index
    }

    /// Faults of every kind from now on, in this share of appends.
    pub fn begin_chaos(&mut self, seed: u64, share: f64) {
        self.chaos = Some((StdRng::seed_from_u64(seed), share));
    }

    pub fn next_fault(&mut self) -> Option<Fault> {
        if let Some(fault) = self.faults.pop_front() {
            return fault;
        }
        let (rng, share) = self.chaos.as_mut()?;
        if !rng.random_bool(*share) {
            return None;
        }
        Some(match rng.random_range(0..6) {
            0 => Fault::LoseAnswer,
            1 => Fault::LoseRequest,
            2 => refuse("LEADERSHIP_LOST", false),
            3 => refuse("NO_LEADER", true),
            4 => {
                let mut lost = refuse("LEADERSHIP_LOST", false);
                if let Fault::Refuse { applied, .. } = &mut lost {
                    *applied = false;
                }
                lost
            }
            _ => Fault::Refuse {
                applied: false,
                failure: failure(Code::ResourceExhausted, "OVERLOADED", true),
            },
        })
    }

    /// The cluster forgets a session.
    pub fn forget(&mut self, session: &str) {
        self.sessions.remove(session);
    }

    pub fn sessions(&self) -> impl Iterator<Item = proto::SessionInfo> {
        self.sessions
            .iter()
            .map(|(name, session)| proto::SessionInfo {
                session: name.clone(),
                epoch: session.epoch,
                last_sequence: session.last_sequence,
                idle: None,
            })
    }

    pub fn open(
        &mut self,
        request: &proto::OpenSessionRequest,
    ) -> Result<proto::OpenSessionResponse, Failure> {
        self.index += 1;
        let name = request.session.as_str();
        let nonce = &request.nonce;
        let fresh = !self.sessions.contains_key(name);
        let session = self.sessions.entry(name.to_owned()).or_default();
        if session.nonce != *nonce {
            if !fresh && request.epoch != 0 && request.epoch != session.epoch {
                return Err(failure(Code::FailedPrecondition, "FENCED", true));
            }
            session.epoch = self.index;
            session.nonce = nonce.to_vec();
        }
        Ok(proto::OpenSessionResponse {
            partition: 0,
            epoch: session.epoch,
            last_sequence: session.last_sequence,
            fresh: fresh || session.last_sequence == 0,
        })
    }

    pub fn append(&mut self, batch: &proto::Batch) -> Result<proto::AppendResponse, Failure> {
        self.index += 1;
        let precondition = |reason| failure(Code::FailedPrecondition, reason, true);
        let Some(session) = self.sessions.get_mut(&batch.session) else {
            return Err(precondition("SESSION_UNKNOWN"));
        };
        if batch.epoch != session.epoch {
            return Err(precondition("FENCED"));
        }
        let expected = session.last_sequence + 1;
        if batch.sequence > expected {
            let mut gap = precondition("SEQUENCE_GAP");
            gap.metadata.push(("expected", expected.to_string()));
            return Err(gap);
        }
        let payload = proto::Batch {
            session: String::new(),
            epoch: 0,
            sequence: 0,
            ..batch.clone()
        }
        .encode_to_vec();
        if batch.sequence < expected {
            return match session.results.get(&batch.sequence) {
                Some((before, _)) if *before != payload => Err(precondition("PAYLOAD_MISMATCH")),
                Some((_, result)) => result.clone().map(|answer| proto::AppendResponse {
                    duplicate: true,
                    ..answer
                }),
                None => Ok(proto::AppendResponse {
                    session: batch.session.clone(),
                    sequence: batch.sequence,
                    duplicate: true,
                    outcomes_dropped: true,
                    ..Default::default()
                }),
            };
        }
        session.last_sequence = batch.sequence;
        let result = self.apply(batch);
        let kept = self.results_kept;
        let session = self.sessions.get_mut(&batch.session).expect("found above");
        session
            .results
            .insert(batch.sequence, (payload, result.clone()));
        while session.results.len() > kept {
            session.results.pop_first();
        }
        result
    }

    fn apply(&mut self, batch: &proto::Batch) -> Result<proto::AppendResponse, Failure> {
        for expected in &batch.expected_revisions {
            let actual = self.hunts.revision(&expected.hunt);
            let wanted = match expected.expected {
                Some(proto::expected_revision::Expected::Exactly(revision)) => revision,
                _ => 0,
            };
            if wanted != actual {
                let mut mismatch = failure(Code::FailedPrecondition, "REVISION_MISMATCH", true);
                mismatch.metadata.push(("actual", actual.to_string()));
                return Err(mismatch);
            }
        }
        let outcomes = batch.events.iter().map(|event| self.decide(batch, event));
        Ok(proto::AppendResponse {
            session: batch.session.clone(),
            sequence: batch.sequence,
            outcomes: outcomes.collect(),
            log_index: self.index,
            ..Default::default()
        })
    }

    fn decide(&mut self, batch: &proto::Batch, event: &proto::Event) -> proto::EventOutcome {
        use proto::event_outcome::Outcome;
        let offset = self.log.len() as u64;
        let outcome = match self.hunts.apply(event, offset) {
            Ok((revision, effects)) => {
                self.log.push(proto::CommittedEvent {
                    offset,
                    revision,
                    log_index: self.index,
                    origin: proto::Origin::Client.into(),
                    session: batch.session.clone(),
                    sequence: batch.sequence,
                    event: Some(event.clone()),
                    effects: effects.clone(),
                    ..Default::default()
                });
                Outcome::Accepted(proto::Accepted {
                    offset,
                    revision,
                    effects,
                })
            }
            Err(reason) => Outcome::Rejected(proto::Rejected {
                reason: reason.into(),
            }),
        };
        proto::EventOutcome {
            outcome: Some(outcome),
        }
    }

    /// The log as this node has it.
    pub fn log_of(&self, node: usize) -> Vec<proto::CommittedEvent> {
        match self.tampered.get(&node) {
            None => self.log.clone(),
            Some(tamper) => self.log_of_with(*tamper),
        }
    }

    /// The log with this done to it.
    pub fn log_of_with(&self, tamper: Tamper) -> Vec<proto::CommittedEvent> {
        let mut log = self.log.clone();
        match tamper {
            Tamper::Truncated => drop(log.pop()),
            Tamper::Changed(offset) => {
                let event = log[usize::try_from(offset).expect("small")].event.as_mut();
                event.expect("set").player.push('!');
            }
            Tamper::Repeated(offset) => {
                let mut again = log[usize::try_from(offset).expect("small")].clone();
                again.offset = log.len() as u64;
                again.log_index = self.index + 1;
                log.push(again);
            }
        }
        log
    }
}
