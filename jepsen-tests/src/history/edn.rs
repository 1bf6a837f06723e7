//! A history in the forms that Jepsen's own checkers read: EDN, one op map a
//! line.

use std::io::{self, Write};

use super::{Event, History, Kind, Op, Process};

/// For which checker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum EdnForm {
    /// Elle's list-append: appends, and linearizable reads of whole keys, each a
    /// transaction of one operation. Reads of a part are left out: Elle knows
    /// only whole lists.
    Elle,
    /// `jepsen.tests.kafka`: appends are sends, what subscriptions are given are
    /// polls.
    Kafka,
}

impl History {
    /// Writes what the checker of `form` can judge; how many operations that are.
    /// Faults are left out, and the events are numbered anew.
    ///
    /// # Errors
    /// When `to` can not be written.
    pub fn write_edn(&self, form: EdnForm, mut to: impl Write) -> io::Result<u64> {
        let mut written = 0;
        for event in self.events() {
            let Process::Client(process) = event.process else {
                continue;
            };
            if let Some((f, value)) = form.op(event) {
                let kind = match event.kind {
                    Kind::Invoke => "invoke",
                    Kind::Ok => "ok",
                    Kind::Fail => "fail",
                    Kind::Info => "info",
                };
                writeln!(
                    to,
                    "{{:index {written}, :time {}, :type :{kind}, :process {process}, :f :{f}, :value {value}}}",
                    event.time_ns
                )?;
                written += 1;
            }
        }
        Ok(written)
    }
}

impl EdnForm {
    /// The name and the value of an operation that this checker knows.
    fn op(self, event: &Event) -> Option<(&'static str, String)> {
        let ok = event.kind == Kind::Ok;
        match (self, &event.op) {
            (Self::Elle, Op::Append(op)) => {
                Some(("txn", format!("[[:append {} {}]]", text(&op.key), op.v)))
            }
            (Self::Elle, Op::Read(op)) if op.from == 0 && !op.given_up => {
                let key = text(&op.key);
                let Some(entries) = op.entries.as_ref().filter(|_| ok) else {
                    return Some(("txn", format!("[[:r {key} nil]]")));
                };
                let values: Vec<String> = entries.iter().map(|(_, v)| v.to_string()).collect();
                Some(("txn", format!("[[:r {key} [{}]]]", values.join(" "))))
            }
            (Self::Kafka, Op::Append(op)) => {
                let (key, v) = (text(&op.key), op.v);
                Some(match op.offset.filter(|_| ok) {
                    Some(offset) => ("send", format!("[[:send {key} [{offset} {v}]]]")),
                    None => ("send", format!("[[:send {key} {v}]]")),
                })
            }
            (Self::Kafka, Op::Poll(op)) => {
                let Some(entries) = op.entries.as_ref().filter(|_| ok) else {
                    return Some(("poll", "[[:poll]]".to_owned()));
                };
                let pairs: Vec<String> = entries
                    .iter()
                    .map(|(offset, v)| format!("[{offset} {v}]"))
                    .collect();
                let polled = format!("[[:poll {{{} [{}]}}]]", text(&op.key), pairs.join(" "));
                Some(("poll", polled))
            }
            _ => None,
        }
    }
}

/// An EDN string: what JSON writes is one.
fn text(key: &str) -> String {
    serde_json::Value::from(key).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HISTORY: &str = r#"{"index":0,"time":1,"process":0,"type":"invoke","f":"append","value":{"key":"a\"b","producer":"p","seq":1,"v":7}}
{"index":1,"time":2,"process":"nemesis","type":"info","f":"kill","value":{"phase":"start","nodes":[1]}}
{"index":2,"time":3,"process":0,"type":"ok","f":"append","value":{"key":"a\"b","producer":"p","seq":1,"v":7,"offset":0}}
{"index":3,"time":4,"process":0,"type":"invoke","f":"read","value":{"key":"a\"b","from":0}}
{"index":4,"time":5,"process":0,"type":"ok","f":"read","value":{"key":"a\"b","from":0,"entries":[[0,7]],"end":1}}
{"index":5,"time":6,"process":0,"type":"invoke","f":"read","value":{"key":"a\"b","from":1}}
{"index":6,"time":7,"process":0,"type":"ok","f":"read","value":{"key":"a\"b","from":1,"entries":[],"end":1}}
{"index":7,"time":8,"process":1,"type":"invoke","f":"poll","value":{"key":"a\"b","sub":"s"}}
{"index":8,"time":9,"process":1,"type":"ok","f":"poll","value":{"key":"a\"b","sub":"s","entries":[[0,7]]}}
{"index":9,"time":9,"process":0,"type":"invoke","f":"append","value":{"key":"a\"b","producer":"p","seq":2,"v":8}}
{"index":10,"time":9,"process":0,"type":"info","f":"append","value":{"key":"a\"b","producer":"p","seq":2,"v":8}}
"#;

    fn written(form: EdnForm) -> String {
        let history = History::read(HISTORY.as_bytes()).expect("a history");
        let mut to = Vec::new();
        let count = history.write_edn(form, &mut to).expect("memory");
        let text = String::from_utf8(to).expect("text");
        assert_eq!(count, text.lines().count() as u64);
        text
    }

    #[test]
    fn elle_is_given_appends_and_whole_reads() {
        assert_eq!(
            written(EdnForm::Elle),
            r#"{:index 0, :time 1, :type :invoke, :process 0, :f :txn, :value [[:append "a\"b" 7]]}
{:index 1, :time 3, :type :ok, :process 0, :f :txn, :value [[:append "a\"b" 7]]}
{:index 2, :time 4, :type :invoke, :process 0, :f :txn, :value [[:r "a\"b" nil]]}
{:index 3, :time 5, :type :ok, :process 0, :f :txn, :value [[:r "a\"b" [7]]]}
{:index 4, :time 9, :type :invoke, :process 0, :f :txn, :value [[:append "a\"b" 8]]}
{:index 5, :time 9, :type :info, :process 0, :f :txn, :value [[:append "a\"b" 8]]}
"#
        );
    }

    #[test]
    fn the_kafka_checker_is_given_sends_and_polls() {
        assert_eq!(
            written(EdnForm::Kafka),
            r#"{:index 0, :time 1, :type :invoke, :process 0, :f :send, :value [[:send "a\"b" 7]]}
{:index 1, :time 3, :type :ok, :process 0, :f :send, :value [[:send "a\"b" [0 7]]]}
{:index 2, :time 8, :type :invoke, :process 1, :f :poll, :value [[:poll]]}
{:index 3, :time 9, :type :ok, :process 1, :f :poll, :value [[:poll {"a\"b" [[0 7]]}]]}
{:index 4, :time 9, :type :invoke, :process 0, :f :send, :value [[:send "a\"b" 8]]}
{:index 5, :time 9, :type :info, :process 0, :f :send, :value [[:send "a\"b" 8]]}
"#
        );
    }
}
