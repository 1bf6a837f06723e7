use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::*;

fn append(v: u64, offset: Option<u64>) -> Op {
    Op::Append(Append {
        key: "h1".to_owned(),
        producer: "p0".to_owned(),
        seq: 1,
        v,
        epoch: None,
        batch: None,
        offset,
    })
}

fn recorder() -> Arc<Recorder> {
    let ticks = AtomicU64::new(0);
    Recorder::new(move || ticks.fetch_add(100, Ordering::Relaxed))
}

fn text(history: &History) -> String {
    let mut bytes = Vec::new();
    history.write(&mut bytes).expect("memory takes everything");
    String::from_utf8(bytes).expect("JSON is UTF-8")
}

#[test]
fn what_is_recorded_is_written_as_the_format_says() {
    let recorder = recorder();
    let mut client = recorder.client();
    client.invoke(append(17, None)).ok(append(17, Some(0)));
    recorder.fault(Fault {
        name: "pause".to_owned(),
        phase: Phase::Start,
        nodes: vec![2],
        detail: None,
    });
    let who = |winners| {
        Op::Who(Who {
            key: "t".to_owned(),
            winners,
        })
    };
    client.invoke(who(None)).ok(who(Some(Vec::new())));
    client.invoke(append(18, None)).info("no answer");
    assert_eq!(client.number(), 1);
    assert_eq!(
        text(&recorder.history()),
        r#"{"index":0,"time":0,"process":0,"type":"invoke","f":"append","value":{"key":"h1","producer":"p0","seq":1,"v":17}}
{"index":1,"time":100,"process":0,"type":"ok","f":"append","value":{"key":"h1","offset":0,"producer":"p0","seq":1,"v":17}}
{"index":2,"time":200,"process":"nemesis","type":"info","f":"pause","value":{"nodes":[2],"phase":"start"}}
{"index":3,"time":300,"process":0,"type":"invoke","f":"who","value":{"key":"t"}}
{"index":4,"time":400,"process":0,"type":"ok","f":"who","value":{"key":"t","winner":null}}
{"index":5,"time":500,"process":0,"type":"invoke","f":"append","value":{"key":"h1","producer":"p0","seq":1,"v":18}}
{"index":6,"time":600,"process":0,"type":"info","f":"append","value":{"key":"h1","producer":"p0","seq":1,"v":18},"error":"no answer"}
"#
    );
}

#[test]
fn what_is_written_is_read_again() {
    let recorder = recorder();
    let mut client = recorder.client();
    let answered = [
        append(1, Some(0)),
        Op::Read(Read {
            key: "h".to_owned(),
            from: 1,
            node: Some(3),
            given_up: false,
            entries: Some(vec![(1, 7), (2, 9)]),
            end: Some(3),
        }),
        Op::StaleRead(StaleRead {
            entries: Some(Vec::new()),
            end: Some(0),
            ..StaleRead::default()
        }),
        Op::Poll(Poll {
            key: "h".to_owned(),
            sub: "s".to_owned(),
            entries: Some(vec![(0, 1)]),
        }),
        Op::Open(Open {
            producer: "p".to_owned(),
            epoch: Some(9),
            last: Some(4),
            fresh: Some(false),
        }),
        Op::Claim(Claim {
            key: "t".to_owned(),
            player: "ann".to_owned(),
            limit: Some(2),
            won: Some(true),
            winner: None,
        }),
        Op::Who(Who {
            key: "t".to_owned(),
            winners: Some(vec!["ann".to_owned(), "bob".to_owned()]),
        }),
    ];
    for op in answered {
        client.invoke(op.clone()).ok(op);
    }
    client.invoke(append(2, None)).fail("refused");
    drop(client.invoke(append(3, None)));
    let history = recorder.history();
    let read = History::read(text(&history).as_bytes()).expect("our own");
    assert_eq!(read, history);
    assert_eq!(
        History::new(history.events.clone()).expect("sound"),
        history
    );
}

#[test]
fn lines_that_are_no_history_are_named() {
    let line = |index: u64, process: &str, kind: &str, rest: &str| {
        format!(r#"{{"index":{index},"time":{index},"process":{process},"type":"{kind}",{rest}}}"#)
    };
    let poll = r#""f":"poll","value":{"key":"h","sub":"s"}"#;
    let polled = r#""f":"poll","value":{"key":"h","sub":"s","entries":[[0,1]]}"#;
    let other = r#""f":"poll","value":{"key":"h","sub":"t","entries":[]}"#;
    let fault = r#""f":"kill","value":{"phase":"start","nodes":[1]}"#;
    let append = r#""f":"append","value":{"key":"h","producer":"p","seq":1,"v":7}"#;
    for (lines, said) in [
        (
            vec!["port,state".to_owned()],
            "line 1 is no event of a history: expected value",
        ),
        (vec!["{}".to_owned()], "missing field `index`"),
        (
            vec![line(1, "0", "invoke", poll)],
            "index 1 where 0 is next",
        ),
        (
            vec![line(0, "0", "ok", polled)],
            "process 0 has no operation open",
        ),
        (
            vec![line(0, "-1", "invoke", poll)],
            "process -1 is neither a number",
        ),
        (vec![line(0, "0", "began", poll)], "unknown variant `began`"),
        (vec![line(0, "0", "info", fault)], "unknown f \"kill\""),
        (
            vec![line(0, "\"nemesis\"", "ok", fault)],
            "only the nemesis",
        ),
        (
            vec![line(0, "\"nemesis\"", "info", poll)],
            "unknown field `key`",
        ),
        (
            vec![line(0, "0", "invoke", r#""f":"poll","value":{"key":"h"}"#)],
            "missing field `sub`",
        ),
        (
            vec![line(0, "0", "invoke", poll), line(1, "0", "invoke", poll)],
            "line 2 is no event of a history: process 0 invokes while",
        ),
        (
            vec![line(0, "0", "invoke", poll), line(1, "0", "ok", poll)],
            "an ok of poll needs \"entries\"",
        ),
        (
            vec![line(0, "0", "invoke", poll), line(1, "0", "ok", other)],
            "ends another operation",
        ),
        (
            vec![
                line(0, "0", "invoke", poll),
                line(1, "0", "info", poll),
                line(2, "0", "invoke", poll),
            ],
            "line 3 is no event of a history: process 0 goes on after an info",
        ),
        (
            vec![
                line(0, "0", "invoke", append),
                line(1, "1", "invoke", append),
            ],
            "value 7 is appended to h twice",
        ),
    ] {
        let error = History::read(lines.join("\n").as_bytes()).expect_err(said);
        assert!(error.to_string().contains(said), "{error} lacks {said}");
    }
    let early = [
        line(0, "0", "invoke", poll).replace(r#""time":0"#, r#""time":5"#),
        line(1, "0", "ok", polled),
    ];
    let error = History::read(early.join("\n").as_bytes()).expect_err("time goes back");
    assert!(error.to_string().contains("time 1 is before"), "{error}");
    let error = History::read(&b""[..]).expect_err("empty");
    assert!(matches!(error, HistoryError::Empty));
    let error = History::read(&b"\xff\xfe\n"[..]).expect_err("no text");
    assert!(matches!(error, HistoryError::Io(_)));
}

#[test]
fn an_observer_is_shown_each_event_as_it_comes() {
    let shown = Arc::new(Mutex::new(Vec::new()));
    let recorder = Recorder::observed(|| 0, {
        let shown = shown.clone();
        move |event| shown.lock().expect("no panic").push(event.to_string())
    });
    let who = Op::Who(Who {
        key: "t".to_owned(),
        winners: None,
    });
    let mut client = recorder.client();
    client.invoke(who.clone()).info("too late");
    assert_eq!(
        *shown.lock().expect("no panic"),
        [
            r#"process 0 invoke who {"key":"t"}"#,
            r#"process 0 info who {"key":"t"} (too late)"#
        ]
    );
}
