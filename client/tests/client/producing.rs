//! Sessions, appends, retries.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::FutureExt;
use huntlog_client::proto::CommittedEvent;
use huntlog_client::{
    AppendError, Appended, CallError, Cause, Client, ClientOptions, Disposition, InvalidBatch,
    Producer, Reason, SessionOptions, event, proto,
};
use tonic::Code;

use crate::peer::{Fault, Peers, failure, refuse};

fn options() -> ClientOptions {
    ClientOptions {
        timeout: Duration::from_secs(30),
        answer_timeout: Duration::from_millis(300),
        ..ClientOptions::default()
    }
}

/// How long a patient client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// For tests that count: a busy machine is no dead stream.
fn patient(peers: &Peers) -> Client {
    let options = ClientOptions {
        answer_timeout: PATIENCE,
        ..options()
    };
    Client::connect(peers.addresses(), options).expect("valid")
}

fn client(peers: &Peers) -> Client {
    Client::connect(peers.addresses(), options()).expect("valid")
}

fn message(number: u64) -> proto::Event {
    event::custom("h", "", "m", number.to_le_bytes().to_vec())
}

fn number(event: &CommittedEvent) -> u64 {
    match &event.event.as_ref().expect("set").kind {
        Some(proto::event::Kind::Custom(custom)) => {
            u64::from_le_bytes(custom.payload[..].try_into().expect("eight bytes"))
        }
        other => panic!("{other:?}"),
    }
}

/// Of a session whose batches are soon given up.
fn short() -> SessionOptions {
    SessionOptions {
        timeout: Some(Duration::from_secs(1)),
        ..SessionOptions::default()
    }
}

/// The next batch is applied and not answered, and refused when sent again.
fn lose_an_answer_then_refuse(peers: &Peers) {
    let no_leader = std::iter::repeat_n(Some(refuse("NO_LEADER", true)), 1_000);
    let faults = std::iter::once(Some(Fault::LoseAnswer)).chain(no_leader);
    peers.state().faults = faults.collect();
}

async fn append(producer: &Producer, number: u64) -> Result<Appended, AppendError> {
    let ticket = producer.append_batch(vec![message(number)]).await?;
    ticket.await
}

/// Every one of these numbers is in the log once, in order, where its
/// acknowledgement says.
fn assert_exactly_once(peers: &Peers, acknowledged: &[(u64, Appended)]) {
    let state = peers.state();
    let numbers: Vec<u64> = state.log.iter().map(number).collect();
    let expected: Vec<u64> = acknowledged.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, expected);
    for (offset, (number, appended)) in acknowledged.iter().enumerate() {
        let Some(outcomes) = &appended.outcomes else {
            continue;
        };
        let Some(proto::event_outcome::Outcome::Accepted(accepted)) = &outcomes[0].outcome else {
            panic!("{number}: {outcomes:?}");
        };
        assert_eq!(accepted.offset, offset as u64, "{number}");
    }
}

async fn append_all(producer: &Producer, numbers: std::ops::Range<u64>) -> Vec<(u64, Appended)> {
    let mut tickets = Vec::new();
    for number in numbers {
        let ticket = producer.append_batch(vec![message(number)]).await;
        tickets.push((number, ticket.expect("valid")));
    }
    let mut acknowledged = Vec::new();
    for (number, ticket) in tickets {
        acknowledged.push((number, ticket.await.expect("resolved in time")));
    }
    acknowledged
}

/// I2, I3, I5
#[tokio::test]
async fn every_fault_leaves_each_batch_applied_once_and_in_order() {
    for seed in 0..6 {
        let peers = Peers::start(3);
        peers.state().begin_chaos(seed, 0.15);
        let client = client(&peers);
        let producer = client.session("s").await.expect("opens");
        let acknowledged = append_all(&producer, 0..300).await;
        assert_exactly_once(&peers, &acknowledged);
        assert!(
            acknowledged.iter().any(|(_, a)| a.duplicate),
            "seed {seed}: the faults did not provoke a single duplicate"
        );
    }
}

/// I3
#[tokio::test]
async fn an_answer_that_is_lost_is_asked_for_again_and_comes_as_a_duplicate() {
    let peers = Peers::start(1);
    peers.state().faults = [Some(Fault::LoseAnswer)].into();
    let client = patient(&peers);
    let producer = client.session("s").await.expect("opens");
    let appended = append(&producer, 7).await.expect("acknowledged");
    assert!(appended.duplicate);
    assert_eq!((appended.sequence, appended.attempts), (1, 2));
    assert_exactly_once(&peers, &[(7, appended)]);
}

#[tokio::test]
async fn a_stream_that_falls_silent_is_given_up() {
    let peers = Peers::start(1);
    peers.state().faults = [None, Some(Fault::Silence)].into();
    let client = client(&peers);
    let producer = client.session("s").await.expect("opens");
    let acknowledged = append_all(&producer, 0..3).await;
    assert!(acknowledged[1].1.duplicate);
    assert_exactly_once(&peers, &acknowledged);
}

#[tokio::test]
async fn killing_the_leader_under_load_loses_and_duplicates_nothing() {
    let mut peers = Peers::start(3);
    let client = client(&peers);
    let producer = client.session("s").await.expect("opens");
    let mut acknowledged = append_all(&producer, 0..50).await;
    let load = tokio::spawn(async move { append_all(&producer, 50..2_000).await });
    peers.until(|state| state.log.len() > 200).await;
    peers.kill(0);
    peers.elect(None);
    // Somebody has to have been told that there is no leader.
    let refused = |state: &crate::peer::State| {
        state.received.contains_key(&1) || state.received.contains_key(&2)
    };
    peers.until(refused).await;
    peers.elect(Some(2));
    acknowledged.extend(load.await.expect("no panic"));
    assert_exactly_once(&peers, &acknowledged);
}

#[tokio::test]
async fn a_restart_of_all_nodes_is_outlasted() {
    let mut peers = Peers::start(3);
    let client = client(&peers);
    let producer = client.session("s").await.expect("opens");
    let load = tokio::spawn(async move { append_all(&producer, 0..2_000).await });
    peers.until(|state| state.log.len() > 200).await;
    for node in 0..3 {
        peers.kill(node);
    }
    for node in 0..3 {
        peers.restart(node);
    }
    let acknowledged = load.await.expect("no panic");
    assert_exactly_once(&peers, &acknowledged);
}

#[tokio::test]
async fn the_client_goes_to_the_leader_it_is_told_of() {
    let peers = Peers::start(3);
    peers.elect(Some(2));
    let client = patient(&peers);
    let producer = client.session("s").await.expect("opens");
    append_all(&producer, 0..20).await;
    let received = peers.state().received.clone();
    assert_eq!(received.get(&2), Some(&20), "{received:?}");
}

#[tokio::test]
async fn a_leader_that_hangs_is_left_for_the_one_that_the_others_name() {
    let peers = Peers::start(3);
    let client = patient(&peers);
    let producer = client.session("s").await.expect("opens");
    append(&producer, 0).await.expect("the first leads");
    // It takes a batch and answers nothing: neither this nor anything else.
    peers.state().faults = [Some(Fault::Silence)].into();
    let elected = async {
        peers.until(|state| state.log.len() == 2).await;
        peers.elect(Some(2));
    };
    let began = tokio::time::Instant::now();
    let (appended, ()) = tokio::join!(append(&producer, 1), elected);
    assert!(appended.expect("answered by the new one").duplicate);
    // Only then does a stream that is never answered end by itself.
    assert!(began.elapsed() < PATIENCE);
    let received = peers.state().received.clone();
    assert_eq!(received, [(0, 2), (2, 1)].into());
}

/// I4
#[tokio::test]
async fn a_session_opened_elsewhere_fences_this_producer() {
    let peers = Peers::start(1);
    let (old, new) = (patient(&peers), patient(&peers));
    let fenced = old.session("s").await.expect("opens");
    append(&fenced, 0).await.expect("not fenced yet");
    let producer = new
        .session_with("s", SessionOptions::default())
        .await
        .expect("opens");
    assert_eq!(producer.last_sequence(), 1);
    let error = append(&fenced, 1).await.expect_err("fenced");
    assert_eq!(error.disposition(), Disposition::NotApplied);
    assert_eq!(*error.cause(), Cause::Fenced);
    let again = append(&fenced, 2).await.expect_err("for good");
    assert_eq!(*again.cause(), Cause::Fenced);
    append(&producer, 3).await.expect("the new one goes on");
}

/// I4
#[tokio::test]
async fn a_fenced_producer_does_not_take_the_session_back_when_it_opens_it_again() {
    let peers = Peers::start(1);
    let client = client(&peers);
    let fenced = client.session_with("s", short()).await.expect("opens");
    // Given up unknown: what became of it, only another opening can tell.
    lose_an_answer_then_refuse(&peers);
    let given_up = async {
        let error = append(&fenced, 0).await.expect_err("refused");
        assert_eq!(error.disposition(), Disposition::Unknown, "{error}");
    };
    let leaderless = async {
        peers.until(|state| !state.log.is_empty()).await;
        peers.elect(None);
    };
    tokio::join!(given_up, leaderless);
    // Another program is the first to open it once there is a leader.
    {
        let mut state = peers.state();
        state.faults.clear();
        state.leader = Some(0);
        let other = proto::OpenSessionRequest {
            partition: 0,
            session: "s".to_owned(),
            nonce: vec![7; 16].into(),
            epoch: 0,
        };
        state.open(&other).expect("opens");
    }
    let error = append(&fenced, 1).await.expect_err("fenced");
    assert_eq!(error.disposition(), Disposition::NotApplied);
    assert_eq!(*error.cause(), Cause::Fenced);
    assert_eq!(peers.state().log.len(), 1);
}

#[tokio::test]
async fn one_client_opens_a_name_once_at_a_time() {
    let peers = Peers::start(1);
    let client = client(&peers);
    let first = client.session("s").await.expect("opens");
    let error = client.session("s").await.expect_err("open already");
    assert_eq!(error, CallError::AlreadyOpen("s".to_owned()));
    append(&first, 0).await.expect("unharmed");
    first.close().await.expect("flushes");
    let again = loop {
        // Letting go happens in the background.
        match client.session("s").await {
            Ok(producer) => break producer,
            Err(CallError::AlreadyOpen(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(again.last_sequence(), 1);
}

/// I10
#[tokio::test]
async fn a_batch_that_was_only_ever_refused_is_not_applied() {
    let peers = Peers::start(1);
    let client = patient(&peers);
    let options = SessionOptions {
        timeout: Some(Duration::from_secs(3)),
        ..SessionOptions::default()
    };
    let producer = client.session_with("s", options).await.expect("opens");

    // What is under way when the deadline passes may still be applied: the node wants
    // the next attempt a second after it.
    let mut no_leader = refuse("NO_LEADER", true);
    if let Fault::Refuse { failure, .. } = &mut no_leader {
        failure.retry_after = Some(Duration::from_secs(4));
    }
    peers.state().faults = [Some(no_leader)].into();
    let error = append(&producer, 0).await.expect_err("no leader");
    assert_eq!(error.disposition(), Disposition::NotApplied, "{error}");
    assert!(error.to_string().contains("NO_LEADER"), "{error}");

    append(&producer, 1).await.expect("goes on");
    let numbers: Vec<u64> = peers.state().log.iter().map(number).collect();
    assert_eq!(numbers, [1]);
}

/// I10
#[tokio::test]
async fn errors_say_when_nobody_knows_whether_the_batch_was_applied() {
    let peers = Peers::start(1);
    let client = client(&peers);
    let producer = client.session_with("s", short()).await.expect("opens");

    peers.state().hold = true;
    let error = append(&producer, 1).await.expect_err("never answered");
    assert_eq!(error.disposition(), Disposition::Unknown, "{error}");
    peers.release();

    // Unknown first, refused for certain after that: unknown.
    lose_an_answer_then_refuse(&peers);
    let error = append(&producer, 2).await.expect_err("refused");
    assert_eq!(error.disposition(), Disposition::Unknown, "{error}");
    peers.state().faults.clear();

    // What was given up is settled before anything else is applied.
    append(&producer, 3).await.expect("goes on");
    let numbers: Vec<u64> = peers.state().log.iter().map(number).collect();
    assert_eq!(numbers, [1, 2, 3]);
}

#[tokio::test]
async fn a_batch_the_node_finds_invalid_does_not_stop_those_behind_it() {
    let peers = Peers::start(1);
    let client = client(&peers);
    let producer = client.session("s").await.expect("opens");
    let mut invalid = refuse("INVALID", true);
    if let Fault::Refuse { failure, .. } = &mut invalid {
        failure.code = Code::InvalidArgument;
        failure.retry_after = None;
    }
    peers.state().faults = [None, Some(invalid)].into();
    let mut tickets = Vec::new();
    for n in 0..10 {
        tickets.push(
            producer
                .append_batch(vec![message(n)])
                .await
                .expect("valid"),
        );
    }
    for (n, ticket) in tickets.into_iter().enumerate() {
        match ticket.await {
            Ok(_) => assert_ne!(n, 1),
            Err(AppendError::NotApplied {
                cause: Cause::Refused(refusal),
            }) => {
                assert_eq!((n, &refusal.reason), (1, &Reason::Invalid));
            }
            Err(other) => panic!("{n}: {other}"),
        }
    }
    let numbers: Vec<u64> = peers.state().log.iter().map(number).collect();
    assert_eq!(numbers, [0, 2, 3, 4, 5, 6, 7, 8, 9]);
}

#[tokio::test]
async fn impossible_batches_are_refused_before_they_are_sent() {
    let peers = Peers::start(1);
    let client = client(&peers);
    let producer = client.session("s").await.expect("opens");
    let large = event::custom("h", "", "m", vec![0; (1 << 20) + 1]);
    let heavy = event::custom("h", "", "m", vec![0; 1 << 19]);
    for (events, fault) in [
        (vec![], "at least one event"),
        (vec![message(0); 4_097], "4097 events"),
        (vec![message(0), large.clone()], "event 1 has"),
        (vec![heavy; 9], "the batch has"),
    ] {
        let error = producer.append_batch(events).await.expect_err(fault);
        assert_eq!(error.disposition(), Disposition::NotApplied);
        assert!(error.to_string().contains(fault), "{error}");
    }
    let error = producer.append(large).await.expect_err("too large");
    assert!(matches!(
        error.cause(),
        Cause::Invalid(InvalidBatch::EventTooLarge { index: 0, .. })
    ));
    assert!(peers.state().log.is_empty());
    let error = client
        .session(&"x".repeat(200))
        .await
        .expect_err("too long");
    assert!(matches!(error, CallError::Refused(_)), "{error}");
}

#[tokio::test]
async fn after_a_crash_fixed_numbers_find_out_and_resume() {
    let peers = Peers::start(1);
    let before = patient(&peers);
    let producer = before.session("s").await.expect("opens");
    for number in 1..=5 {
        append(&producer, number).await.expect("acknowledged");
    }
    // The process is gone without having seen the answers to 4 and 5.
    drop((producer, before));
    let after = patient(&peers);
    let producer = after.session("s").await.expect("opens");
    assert_eq!((producer.last_sequence(), producer.is_fresh()), (5, false));
    let mut tickets = Vec::new();
    for number in 4..=8 {
        let batch = vec![message(number)];
        tickets.push(
            producer
                .append_at(number, batch, vec![])
                .await
                .expect("valid"),
        );
    }
    let mut duplicates = Vec::new();
    for ticket in tickets {
        let appended = ticket.await.expect("acknowledged");
        duplicates.push((appended.sequence, appended.duplicate));
    }
    assert_eq!(
        duplicates,
        [(4, true), (5, true), (6, false), (7, false), (8, false)]
    );
    // The wrong content under a number that is taken.
    let ticket = producer.append_at(8, vec![message(99)], vec![]).await;
    let error = ticket.expect("valid").await.expect_err("out of turn");
    assert!(matches!(
        error.cause(),
        Cause::SequenceNotNext {
            expected: 9,
            actual: 8
        }
    ));
    let numbers: Vec<u64> = peers.state().log.iter().map(number).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 8]);
}

#[tokio::test]
async fn other_content_under_a_used_number_is_refused() {
    let peers = Peers::start(1);
    let before = client(&peers);
    let producer = before.session("s").await.expect("opens");
    append(&producer, 1).await.expect("acknowledged");
    drop((producer, before));
    let after = client(&peers);
    let producer = after.session("s").await.expect("opens");
    let ticket = producer.append_at(1, vec![message(2)], vec![]).await;
    let error = ticket.expect("valid").await.expect_err("mismatch");
    assert_eq!(error.disposition(), Disposition::NotApplied);
    assert!(error.to_string().contains("PAYLOAD_MISMATCH"), "{error}");
    append(&producer, 3).await.expect("goes on");
}

/// I3, I10
#[tokio::test]
async fn a_forgotten_session_is_opened_anew_for_what_was_never_applied() {
    let peers = Peers::start(1);
    let client = client(&peers);
    let producer = client.session("s").await.expect("opens");
    append_all(&producer, 0..3).await;
    peers.state().forget("s");
    let appended = append(&producer, 3).await.expect("under a new session");
    assert_eq!(appended.sequence, 1);

    // Applied, its answer lost, then forgotten: nobody can tell any more.
    peers.state().faults = [Some(Fault::Silence)].into();
    let ticket = producer
        .append_batch(vec![message(4)])
        .await
        .expect("valid");
    peers.until(|state| state.log.len() == 5).await;
    peers.state().forget("s");
    let error = ticket.await.expect_err("unknown");
    assert_eq!(error.disposition(), Disposition::Unknown);
    assert_eq!(*error.cause(), Cause::SessionForgotten);
    append(&producer, 5).await.expect("goes on");
    let numbers: Vec<u64> = peers.state().log.iter().map(number).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn a_failed_expectation_is_not_applied_and_the_session_goes_on() {
    let peers = Peers::start(1);
    let client = client(&peers);
    let producer = client.session("s").await.expect("opens");
    append(&producer, 0).await.expect("acknowledged");
    let expected = vec![event::expect_no_event("h")];
    let ticket = producer
        .append_batch_expecting(vec![message(1)], expected)
        .await;
    let error = ticket.expect("valid").await.expect_err("there is one");
    assert_eq!(error.disposition(), Disposition::NotApplied);
    let Cause::Refused(refusal) = error.cause() else {
        panic!("{error}");
    };
    assert_eq!(refusal.reason, Reason::RevisionMismatch);
    assert_eq!(refusal.number("actual"), Some(1));
    let expected = vec![event::expect_revision("h", 1)];
    let ticket = producer
        .append_batch_expecting(vec![message(2)], expected)
        .await;
    let appended = ticket.expect("valid").await.expect("as expected");
    assert_eq!(appended.sequence, 3);
}

/// I11
#[tokio::test]
async fn at_most_a_window_of_batches_is_under_way() {
    let peers = Peers::start(1);
    let client = patient(&peers);
    let slow = SessionOptions::default();
    let producer = client.session_with("s", slow).await.expect("opens");
    peers.state().hold = true;
    let mut tickets = Vec::new();
    for number in 0..100 {
        tickets.push(
            producer
                .append_batch(vec![message(number)])
                .await
                .expect("valid"),
        );
    }
    peers
        .until(|state| state.unanswered.get("s") == Some(&32))
        .await;
    peers.release();
    for ticket in tickets {
        ticket.await.expect("acknowledged");
    }
    assert_eq!(peers.state().unanswered_max, 32);
}

/// I11
#[tokio::test]
async fn a_refusal_for_want_of_room_halves_what_a_client_has_under_way() {
    for (refused, window) in [(false, 256), (true, 128)] {
        let peers = Peers::start(1);
        let options = ClientOptions {
            connections: 1,
            answer_timeout: PATIENCE,
            ..options()
        };
        let client = Client::connect(peers.addresses(), options).expect("valid");
        let producer = client.session("first").await.expect("opens");
        if refused {
            let full = Fault::Refuse {
                failure: failure(Code::ResourceExhausted, "OVERLOADED", true),
                applied: false,
            };
            peers.state().faults = [Some(full)].into();
        }
        let first = append(&producer, 0).await.expect("acknowledged");
        assert_eq!(first.attempts, 1 + u32::from(refused));

        peers.state().hold = true;
        let mut tickets = Vec::new();
        for session in 0..50 {
            let name = format!("s-{session}");
            let producer = client.session(&name).await.expect("opens");
            for number in 0..20 {
                let ticket = producer.append_batch(vec![message(number)]).await;
                tickets.push(ticket.expect("valid"));
            }
        }
        peers
            .until(|state| state.unanswered_total() == window)
            .await;
        client.session("last").await.expect("opens");
        assert_eq!(peers.state().unanswered_total_max, window);
        peers.release();
        for ticket in tickets {
            ticket.await.expect("acknowledged");
        }
        if refused {
            // One more in a round trip.
            let most = peers.state().unanswered_total_max;
            assert!(most <= window + 1_000 / window + 1, "{most}");
        }
    }
}

/// I11
#[tokio::test]
async fn a_full_buffer_makes_appending_wait() {
    let peers = Peers::start(1);
    let options = ClientOptions {
        max_buffered_bytes: 8 << 20,
        answer_timeout: Duration::from_secs(20),
        ..options()
    };
    let client = Client::connect(peers.addresses(), options).expect("valid");
    let producer = client.session("s").await.expect("opens");
    peers.state().hold = true;
    let half = || vec![event::custom("h", "", "m", vec![0; 1_000_000]); 4];
    let first = producer.append_batch(half()).await.expect("room");
    let second = producer.append_batch(half()).await.expect("room");
    let mut third = Box::pin(producer.append_batch(half()));
    assert!(third.as_mut().now_or_never().is_none(), "there is no room");
    peers.release();
    let third = third.await.expect("room again");
    for ticket in [first, second, third] {
        ticket.await.expect("acknowledged");
    }
}

#[tokio::test]
async fn single_events_gather_into_batches() {
    let peers = Peers::start(1);
    let client = patient(&peers);
    let producer = client.session("s").await.expect("opens");
    let mut tickets = Vec::new();
    for number in 0..2_000 {
        tickets.push(producer.append(message(number)).await.expect("valid"));
    }
    producer.flush().await.expect("open");
    for (number, ticket) in tickets.into_iter().enumerate() {
        let ready = tokio::task::unconstrained(ticket).now_or_never();
        let appended = ready.expect("flushed").expect("acknowledged");
        assert_eq!(appended.offset(), Some(number as u64));
    }
    let received = peers.state().received[&0];
    assert!(received <= 200, "{received} batches");
}

#[tokio::test]
async fn thousands_of_sessions_share_a_connection() {
    let peers = Peers::start(1);
    let client = patient(&peers);
    let tasks = (0..2_000_u64).map(|session| {
        let client = client.clone();
        tokio::spawn(async move {
            let name = format!("player-{session}");
            let producer = client.session(&name).await.expect("opens");
            for number in 0..5 {
                let ticket = producer.append(message(session * 10 + number)).await;
                ticket.expect("valid").await.expect("acknowledged");
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("no panic");
    }
    let state = peers.state();
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    for event in &state.log {
        let before = last.insert(&event.session, event.sequence);
        assert!(before.is_none_or(|before| before < event.sequence));
    }
    assert_eq!((state.log.len(), last.len()), (10_000, 2_000));
    assert!(state.connections <= 3, "{} connections", state.connections);
}

#[tokio::test]
async fn what_was_submitted_is_seen_through_after_its_producer_is_dropped() {
    let peers = Peers::start(1);
    let client = client(&peers);
    let producer = client.session("s").await.expect("opens");
    let ticket = producer.append(message(1)).await.expect("valid");
    drop((producer, client));
    ticket.await.expect("acknowledged");
}

#[tokio::test]
async fn nobody_there_is_told_with_the_reason() {
    let mut peers = Peers::start(1);
    peers.kill(0);
    let options = ClientOptions {
        timeout: Duration::from_millis(300),
        ..options()
    };
    let client = Client::connect(peers.addresses(), options).expect("valid");
    let error = client.session("s").await.expect_err("nobody there");
    assert!(matches!(error, CallError::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
}
