//! What explains that a node ends, or says something at level ERROR: a fault that
//! holds it, while it does and for a while longer. Everything else is a finding.

use std::process::ExitStatus;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use prost_types::Timestamp;
use serde_json::Value;

/// How long after a fault a node may still speak of it: it starts again, and reads
/// what it has, in that time.
const MARGIN: Duration = Duration::from_secs(10);

/// How a node may end under a fault, and what it may say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    /// Exit statuses. A signal that the harness has not sent is never among them,
    /// nor is a panic's.
    pub(crate) statuses: &'static [i32],
    /// Lines at level ERROR.
    pub(crate) errors: &'static [&'static [Said]],
    /// Places, of files that are not ours, where a task may panic while the node ends.
    pub(crate) panics: &'static [&'static str],
}

/// A line of a log.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Said {
    /// How its message begins.
    pub(crate) begins: &'static str,
    /// What the line names as the cause: one of these.
    pub(crate) because: &'static [&'static str],
}

/// What has been done to which nodes, and when.
#[derive(Debug, Default)]
pub(crate) struct Excuses {
    all: Mutex<Vec<Excuse>>,
    clocks: Mutex<Vec<WrongClock>>,
}

#[derive(Debug)]
struct Excuse {
    node: u64,
    expected: &'static Expected,
    from: SystemTime,
    /// None as long as it holds.
    until: Option<SystemTime>,
}

/// A node's wall clock that is off: so are the times of its log's lines.
#[derive(Debug)]
struct WrongClock {
    node: u64,
    ahead_s: i32,
    from: SystemTime,
    /// None as long as it is off.
    until: Option<SystemTime>,
}

impl WrongClock {
    /// When it really was what `node` takes for `stamp`, if its clock was off then.
    fn real(&self, node: u64, stamp: SystemTime) -> Option<SystemTime> {
        let by = Duration::from_secs(self.ahead_s.unsigned_abs().into());
        let real = match self.ahead_s > 0 {
            true => stamp - by,
            false => stamp + by,
        };
        let over = self.until.is_some_and(|until| real > until);
        (self.node == node && real >= self.from && !over).then_some(real)
    }
}

impl Expected {
    fn explains(&self, message: &str, line: &str) -> bool {
        let mut all = self.errors.iter().copied().flatten();
        all.any(|said| {
            let mut causes = said.because.iter();
            message.starts_with(said.begins) && causes.any(|cause| line.contains(cause))
        })
    }
}

impl Excuse {
    fn holds(&self, node: u64, at: SystemTime) -> bool {
        let over = self.until.is_some_and(|until| at > until + MARGIN);
        self.node == node && at >= self.from && !over
    }
}

impl Excuses {
    /// Since `from` this is expected of `nodes`.
    pub(crate) fn begin(&self, nodes: &[u64], expected: &'static Expected, from: SystemTime) {
        self.all().extend(nodes.iter().map(|node| Excuse {
            node: *node,
            expected,
            from,
            until: None,
        }));
    }

    /// What was expected of `nodes` is so no more.
    pub(crate) fn end(&self, nodes: &[u64], expected: &'static Expected) {
        let now = SystemTime::now();
        let mut all = self.all();
        let open = all.iter_mut().filter(|excuse| {
            excuse.until.is_none() && nodes.contains(&excuse.node) && *excuse.expected == *expected
        });
        for excuse in open {
            excuse.until = Some(now);
        }
    }

    /// The clock of `node` is about to be ahead, or behind.
    pub(crate) fn clock_goes_wrong(&self, node: u64, ahead_s: i32) {
        self.clocks().push(WrongClock {
            node,
            ahead_s,
            from: SystemTime::now(),
            until: None,
        });
    }

    /// The clock of `node` is right again.
    pub(crate) fn clock_is_right(&self, node: u64) {
        let mut clocks = self.clocks();
        let off = clocks
            .iter_mut()
            .filter(|clock| clock.node == node && clock.until.is_none());
        for clock in off {
            clock.until = Some(SystemTime::now());
        }
    }

    /// Whether something explains that `node` has ended like this a moment ago.
    pub(crate) fn explain_end(&self, node: u64, status: ExitStatus) -> bool {
        let now = SystemTime::now();
        let all = self.all();
        let mut holding = all.iter().filter(|excuse| excuse.holds(node, now));
        status
            .code()
            .is_some_and(|code| holding.any(|excuse| excuse.expected.statuses.contains(&code)))
    }

    /// For the log of `node`, from its first line on.
    pub(crate) fn of_log(&self, node: u64) -> LogExcuses<'_> {
        LogExcuses {
            excuses: self,
            node,
            last: None,
        }
    }

    /// Whether one that holds for `node` when it takes the time for `at` does `explain`.
    fn any(&self, node: u64, at: SystemTime, explain: impl Fn(&Expected) -> bool) -> bool {
        let clocks = self.clocks();
        let really = clocks.iter().filter_map(|clock| clock.real(node, at));
        let moments: Vec<SystemTime> = really.chain([at]).collect();
        let all = self.all();
        let mut holding = all
            .iter()
            .filter(|excuse| moments.iter().any(|at| excuse.holds(node, *at)));
        holding.any(|excuse| explain(excuse.expected))
    }

    fn clocks(&self) -> MutexGuard<'_, Vec<WrongClock>> {
        self.clocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all(&self) -> MutexGuard<'_, Vec<Excuse>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What explains the lines of a node's log, one after the other.
#[derive(Debug)]
pub(crate) struct LogExcuses<'a> {
    excuses: &'a Excuses,
    node: u64,
    /// When the last line that has a time was written: a panic prints none.
    last: Option<SystemTime>,
}

impl LogExcuses<'_> {
    /// Whether `line`, the next of the log, is one that nothing explains.
    pub(crate) fn is_unexpected(&mut self, line: &str) -> bool {
        // What is no JSON has no level.
        let fields = serde_json::from_str(line).unwrap_or(Value::Null);
        let at = fields["timestamp"].as_str().and_then(time);
        self.last = at.or(self.last);
        if fields["level"] != "ERROR" {
            return line.contains("panicked at") && !self.explains_panic(line);
        }
        let (Some(at), Some(message)) = (at, fields["message"].as_str()) else {
            return true;
        };
        let explains = |expected: &Expected| expected.explains(message, line);
        !self.excuses.any(self.node, at, explains)
    }

    fn explains_panic(&self, line: &str) -> bool {
        let at_one = |places: &[&str]| places.iter().any(|place| line.contains(place));
        self.last.is_some_and(|at| {
            let explains = |expected: &Expected| at_one(expected.panics);
            self.excuses.any(self.node, at, explains)
        })
    }
}

fn time(text: &str) -> Option<SystemTime> {
    text.parse::<Timestamp>().ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    static FULL: Expected = Expected {
        statuses: &[1],
        errors: &[&[Said {
            begins: "the node stops",
            because: &["No space left on device"],
        }]],
        panics: &["somebody-1.2.3/src/lib.rs:4:"],
    };

    fn is_unexpected(excuses: &Excuses, node: u64, line: &str) -> bool {
        excuses.of_log(node).is_unexpected(line)
    }

    fn line(at: SystemTime, message: &str, error: &str) -> String {
        let timestamp = Timestamp::from(at);
        format!(
            r#"{{"timestamp":"{timestamp}","level":"ERROR","message":"{message}","error":"{error}"}}"#
        )
    }

    #[test]
    fn a_fault_explains_what_its_victims_say_of_it_and_nothing_else() {
        let excuses = Excuses::default();
        let now = SystemTime::now();
        let error = "storage failed: No space left on device";
        let stops = line(now, "the node stops", error);
        assert!(is_unexpected(&excuses, 2, &stops), "before any fault");
        excuses.begin(&[2], &FULL, now);
        assert!(!is_unexpected(&excuses, 2, &stops));
        assert!(is_unexpected(&excuses, 1, &stops), "not a victim");
        let other = line(now, "the node stops", "the digest of entry 7 differs");
        assert!(is_unexpected(&excuses, 2, &other), "another cause");
        let before = line(now - Duration::from_secs(1), "the node stops", error);
        assert!(is_unexpected(&excuses, 2, &before));
        excuses.end(&[2], &FULL);
        let soon = line(now + MARGIN / 2, "the node stops", error);
        assert!(!is_unexpected(&excuses, 2, &soon));
        let late = line(now + MARGIN * 2, "the node stops", error);
        assert!(is_unexpected(&excuses, 2, &late));
    }

    #[test]
    fn what_a_node_says_is_explained_also_while_its_clock_is_off() {
        for ahead_s in [1_800, -1_800] {
            let stamp = |real: SystemTime| match ahead_s > 0 {
                true => real + Duration::from_secs(1_800),
                false => real - Duration::from_secs(1_800),
            };
            let excuses = Excuses::default();
            let full = |at| line(at, "the node stops", "No space left on device");
            excuses.begin(&[1, 2], &FULL, SystemTime::now());
            let before = SystemTime::now();
            excuses.clock_goes_wrong(1, ahead_s);
            let wrong = full(stamp(SystemTime::now() + Duration::from_secs(1)));
            assert!(!is_unexpected(&excuses, 1, &wrong));
            excuses.clock_is_right(1);
            excuses.end(&[1, 2], &FULL);
            assert!(
                !is_unexpected(&excuses, 1, &full(before)),
                "when it was right"
            );
            assert!(is_unexpected(&excuses, 1, &wrong), "it is right again");
            let early = full(stamp(before - Duration::from_secs(1)));
            assert!(is_unexpected(&excuses, 1, &early), "it was right still");
            let of_another = full(stamp(before));
            assert!(is_unexpected(&excuses, 2, &of_another), "{ahead_s}");
        }
    }

    #[test]
    fn a_panic_is_explained_at_one_place_alone_and_by_a_fault_of_then() {
        let known = "thread 'a' panicked at /registry/somebody-1.2.3/src/lib.rs:4:5:";
        let excuses = Excuses::default();
        let now = SystemTime::now();
        // What the log of `node` says of `panic`, when its last line is of `at`.
        let said = |node, at, panic| {
            let mut log = excuses.of_log(node);
            log.is_unexpected(&line(at, "the node stops", ""));
            log.is_unexpected(panic)
        };
        assert!(said(1, now, known), "before any fault");
        excuses.begin(&[1], &FULL, now);
        assert!(!said(1, now, known));
        assert!(said(2, now, known), "not a victim");
        assert!(said(1, now - Duration::from_secs(1), known), "too early");
        let panic = "thread 'main' panicked at src/main.rs:1: No space left on device";
        assert!(said(1, now, panic));
        let elsewhere = "thread 'a' panicked at /registry/somebody-1.2.3/src/lib.rs:40:5:";
        assert!(said(1, now, elsewhere));
        assert!(!said(1, now, "a line of somebody else's"));
        excuses.end(&[1], &FULL);
        assert!(said(1, SystemTime::now() + MARGIN * 2, known), "too late");
        assert!(is_unexpected(&excuses, 1, known), "nobody knows when");
    }

    #[test]
    fn a_fault_explains_an_exit_status_and_never_a_signal() {
        let exited = |code: i32| ExitStatus::from_raw(code << 8);
        let killed = ExitStatus::from_raw(9);
        let aborted = ExitStatus::from_raw(6);
        let excuses = Excuses::default();
        assert!(!excuses.explain_end(1, exited(1)));
        excuses.begin(&[1], &FULL, SystemTime::now());
        assert!(excuses.explain_end(1, exited(1)));
        assert!(!excuses.explain_end(2, exited(1)));
        for status in [exited(0), exited(101), killed, aborted] {
            assert!(!excuses.explain_end(1, status), "{status}");
        }
    }
}
