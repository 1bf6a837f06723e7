//! The sequencer against a dumb cluster over a network that loses streams and
//! answers, and delivers copies of requests long after their stream is gone.
//!
//! What it has to catch, each tried by putting the fault into the sequencer:
//!
//! | fault | caught as |
//! |---|---|
//! | holes always closed in place | applied twice, or out of order |
//! | a refusal for certain ends UNKNOWN | applied twice |
//! | unknown batches of a forgotten session renumbered | applied twice |
//! | a lost stream leaves batches certain | applied, though said not to be |
//! | a deadline leaves what is in flight certain | applied, though said not to be |
//! | resending without waiting for answers | sends what was given up |
//! | a fence renumbers what was applied | applied twice |
//! | fixed numbers move | another number acknowledged |

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::tests::{config, refusal};
use super::*;
use crate::error::Reason;

type Session = Sequencer<usize, u64>;

/// What a node does with the next request of a stream.
#[derive(Debug, Clone, Copy)]
enum Service {
    Apply,
    RefuseForCertain,
    ApplyAndAnswerUnknown,
    DropAndAnswerUnknown,
    Invalid,
    Strange,
}

#[derive(Debug, Clone)]
enum Step {
    Submit {
        pinned: bool,
        timeout: u8,
    },
    Send,
    Serve(Service),
    Answer,
    LoseStream,
    /// A request of a lost stream arrives after all.
    ServeLate(usize),
    Open {
        lose_answer: bool,
    },
    /// An old opening request arrives again, late.
    OpenLate,
    Forget,
    /// Another producer opens the session.
    OpenElsewhere,
    Pass(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let service = prop_oneof![
        12 => Just(Service::Apply),
        2 => Just(Service::RefuseForCertain),
        2 => Just(Service::ApplyAndAnswerUnknown),
        2 => Just(Service::DropAndAnswerUnknown),
        1 => Just(Service::Invalid),
        1 => Just(Service::Strange),
    ];
    prop_oneof![
        6 => (prop::bool::weighted(0.1), 1..60_u8)
            .prop_map(|(pinned, timeout)| Step::Submit { pinned, timeout }),
        12 => Just(Step::Send),
        12 => service.prop_map(Step::Serve),
        10 => Just(Step::Answer),
        2 => Just(Step::LoseStream),
        3 => any::<usize>().prop_map(Step::ServeLate),
        5 => any::<bool>().prop_map(|lose_answer| Step::Open { lose_answer }),
        1 => Just(Step::OpenLate),
        1 => Just(Step::Forget),
        1 => Just(Step::OpenElsewhere),
        3 => (0..20_u8).prop_map(Step::Pass),
    ]
}

#[derive(Debug, Clone, Copy)]
struct Request {
    epoch: u64,
    sequence: u64,
    payload: usize,
}

type Answer = (u64, u64, Result<u64, Refusal>);

/// The session as the state machine keeps it, and the log.
#[derive(Debug, Default)]
struct Cluster {
    known: bool,
    epoch: u64,
    nonce: u64,
    last_sequence: u64,
    /// By sequence, of this life of the session.
    results: BTreeMap<u64, usize>,
    log: Vec<usize>,
    position: u64,
}

impl Cluster {
    fn open(&mut self, nonce: u64) -> (u64, u64, bool) {
        self.position += 1;
        if self.known && self.nonce == nonce {
            return (self.epoch, self.last_sequence, self.last_sequence == 0);
        }
        if !self.known {
            self.last_sequence = 0;
            self.results.clear();
        }
        self.known = true;
        self.epoch = self.position;
        self.nonce = nonce;
        (self.epoch, self.last_sequence, self.last_sequence == 0)
    }

    fn apply(&mut self, request: Request) -> Result<u64, Refusal> {
        self.position += 1;
        let certain = |reason, expected| Err(refusal(reason, Disposition::NotApplied, expected));
        if !self.known || request.epoch > self.epoch {
            certain(Reason::SessionUnknown, None)
        } else if request.epoch < self.epoch {
            certain(Reason::Fenced, None)
        } else if request.sequence > self.last_sequence + 1 {
            certain(Reason::SequenceGap, Some(self.last_sequence + 1))
        } else if request.sequence <= self.last_sequence {
            if self.results[&request.sequence] == request.payload {
                Ok(request.sequence)
            } else {
                certain(Reason::PayloadMismatch, None)
            }
        } else {
            self.last_sequence = request.sequence;
            self.results.insert(request.sequence, request.payload);
            self.log.push(request.payload);
            Ok(request.sequence)
        }
    }
}

struct World {
    session: Session,
    cluster: Cluster,
    now: Moment,
    requests: VecDeque<Request>,
    answers: VecDeque<Answer>,
    late: Vec<Request>,
    opening: Option<u64>,
    nonces: u64,
    /// The session was forgotten while a batch of it was under way, and has
    /// not been opened here since. Nobody else opens it then: `limits::TIMEOUT`
    /// sees to that.
    forgotten_alive: bool,
    submitted: usize,
    /// Payload and the number fixed for it.
    pinned: BTreeMap<usize, u64>,
    results: BTreeMap<usize, Result<u64, AppendError>>,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            session: Sequencer::new(config()),
            cluster: Cluster::default(),
            now: Moment::ZERO,
            requests: VecDeque::new(),
            answers: VecDeque::new(),
            late: Vec::new(),
            opening: None,
            nonces: 0,
            forgotten_alive: false,
            submitted: 0,
            pinned: BTreeMap::new(),
            results: BTreeMap::new(),
        };
        world.open(false);
        world
    }

    fn open(&mut self, lose_answer: bool) {
        if !self.session.wants_opening() {
            return;
        }
        let nonce = *self.opening.get_or_insert_with(|| {
            self.nonces += 1;
            self.nonces
        });
        let (epoch, last_sequence, fresh) = self.cluster.open(nonce);
        if !lose_answer {
            self.opening = None;
            self.forgotten_alive = false;
            self.session.opened(epoch, last_sequence, fresh);
        }
    }

    fn serve(&mut self, service: Service) {
        let Some(request) = self.requests.pop_front() else {
            return;
        };
        let answer = match service {
            Service::Apply => self.cluster.apply(request),
            Service::RefuseForCertain => {
                Err(refusal(Reason::NoLeader, Disposition::NotApplied, None))
            }
            Service::ApplyAndAnswerUnknown => {
                let _ = self.cluster.apply(request);
                Err(refusal(Reason::LeadershipLost, Disposition::Unknown, None))
            }
            Service::DropAndAnswerUnknown => {
                self.late.push(request);
                Err(refusal(Reason::Deadline, Disposition::Unknown, None))
            }
            Service::Invalid => Err(refusal(Reason::Invalid, Disposition::NotApplied, None)),
            Service::Strange => {
                let mut strange =
                    refusal(Reason::Other("NEW".into()), Disposition::NotApplied, None);
                strange.code = tonic::Code::PermissionDenied;
                Err(strange)
            }
        };
        self.answers
            .push_back((request.epoch, request.sequence, answer));
    }

    fn lose_stream(&mut self) {
        self.late.extend(self.requests.drain(..));
        self.answers.clear();
        self.session.stream_lost();
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Submit { pinned, timeout } => {
                let numbering = if pinned {
                    let sequence = self.session.next_sequence();
                    self.pinned.insert(self.submitted, sequence);
                    Numbering::At(sequence)
                } else {
                    Numbering::Next
                };
                let deadline = self.now + Duration::from_millis(timeout.into());
                let payload = self.submitted;
                self.submitted += 1;
                if let Err((_, error)) = self.session.submit(payload, numbering, deadline) {
                    self.results.insert(payload, Err(error));
                }
            }
            Step::Send => {
                if let Some(out) = self.session.next_send(self.now) {
                    self.requests.push_back(Request {
                        epoch: out.epoch,
                        sequence: out.sequence,
                        payload: *out.payload,
                    });
                }
            }
            Step::Serve(service) => self.serve(service),
            Step::Answer => {
                if let Some((epoch, sequence, answer)) = self.answers.pop_front() {
                    let advice = self.session.answered(epoch, sequence, answer, self.now);
                    assert_ne!(advice, Advice::BreakStream, "the network keeps order");
                }
            }
            Step::LoseStream => self.lose_stream(),
            Step::ServeLate(which) => {
                if !self.late.is_empty() {
                    let request = self.late.remove(which % self.late.len());
                    let _ = self.cluster.apply(request);
                }
            }
            Step::Open { lose_answer } => self.open(lose_answer),
            Step::OpenLate => {
                if self.nonces > 1 && self.cluster.known && !self.forgotten_alive {
                    self.cluster.open(self.nonces - 1);
                }
            }
            Step::Forget => {
                self.cluster.known = false;
                self.forgotten_alive = self.session.pending() > 0;
            }
            Step::OpenElsewhere => {
                if !self.forgotten_alive {
                    self.cluster.open(u64::MAX - self.cluster.position);
                }
            }
            Step::Pass(ms) => {
                self.now += Duration::from_millis(ms.into());
                if self.session.tick(self.now) {
                    self.lose_stream();
                }
            }
        }
        self.collect();
    }

    fn collect(&mut self) {
        for done in self.session.take_resolved() {
            let before = self.results.insert(done.payload, done.result);
            assert!(before.is_none(), "{} was answered twice", done.payload);
        }
    }

    /// Heals everything, delivers every late copy, and runs to the end.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            if self.session.pending() == 0 && self.late.is_empty() && self.requests.is_empty() {
                break;
            }
            self.step(&Step::Open { lose_answer: false });
            self.step(&Step::Send);
            self.step(&Step::Serve(Service::Apply));
            self.step(&Step::Answer);
            self.step(&Step::ServeLate(0));
            self.step(&Step::Pass(1));
        }
        assert_eq!(self.session.pending(), 0, "everything is resolved in time");
    }

    fn check(&self) {
        let mut applied: BTreeMap<usize, usize> = BTreeMap::new();
        for payload in &self.cluster.log {
            *applied.entry(*payload).or_default() += 1;
        }
        assert_eq!(
            self.results.len(),
            self.submitted,
            "every caller is answered"
        );
        for (payload, times) in &applied {
            assert_eq!(*times, 1, "I3: {payload} was applied {times} times");
        }
        for (payload, result) in &self.results {
            let times = applied.get(payload).copied().unwrap_or(0);
            match result {
                Ok(sequence) => {
                    assert_eq!(times, 1, "I2: {payload} is acknowledged");
                    let fixed = self.pinned.get(payload).unwrap_or(sequence);
                    assert_eq!(sequence, fixed, "{payload} keeps its fixed number");
                }
                Err(AppendError::NotApplied { cause }) => {
                    assert_eq!(
                        times, 0,
                        "I10: {payload} was said not to be applied: {cause}"
                    );
                }
                Err(AppendError::Unknown { .. }) => {}
            }
        }
        assert!(
            self.cluster.log.is_sorted(),
            "I5: a session's events are in the order submitted: {:?}",
            self.cluster.log
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_duplicated_reordered_or_misreported(
        steps in prop::collection::vec(step(), 1..250)
    ) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        world.settle();
        world.check();
    }
}
