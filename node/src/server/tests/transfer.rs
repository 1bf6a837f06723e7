//! Leadership is handed over under load.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;

const PRODUCERS: usize = 64;
const TRANSFERS: usize = 10;

#[derive(Default)]
struct Answers {
    applied: AtomicU64,
    not_applied: AtomicU64,
    unknown: AtomicU64,
}

/// Appends one batch after the other, wherever there is a leader, until told to
/// `stop`.
async fn produce(
    partitions: Vec<Arc<Partition>>,
    session: String,
    epoch: u64,
    answers: Arc<Answers>,
    stop: Arc<AtomicBool>,
) {
    let mut sequence = 1;
    while !stop.load(Ordering::Relaxed) {
        let leads = |partition: &&Arc<Partition>| partition.leadership() == Leadership::Local;
        let written = match partitions.iter().find(leads) {
            Some(leader) => match leader.submit(batch(&session, epoch, sequence)) {
                Ok(receiver) => receiver.await.expect("an answer"),
                Err(error) => Err(error),
            },
            None => Err(WriteError::NoLeader),
        };
        let (count, pause) = match written {
            Ok(_) => {
                sequence += 1;
                (&answers.applied, Duration::ZERO)
            }
            Err(error) if error.not_applied() => {
                (&answers.not_applied, limits::RETRY_DELAY_NO_LEADER)
            }
            Err(_) => (&answers.unknown, limits::RETRY_DELAY_NO_LEADER),
        };
        count.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(pause).await;
    }
}

/// I10: what is in flight is seen through before another leads; what comes then
/// is refused as not applied.
#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_under_load_leaves_no_outcome_unknown() {
    let nodes = Nodes::start(3).await;
    let (answers, stop) = (Arc::<Answers>::default(), Arc::<AtomicBool>::default());
    let partitions: Vec<_> = (1..=3).map(|id| nodes.partition(id)).collect();
    let mut producers = JoinSet::new();
    for number in 0..PRODUCERS {
        let session = format!("s{number}");
        let opened = nodes.write(opening(&session)).await.expect("committed");
        let CommandResult::SessionOpened { epoch, .. } = opened else {
            panic!("{opened:?}");
        };
        let (answers, stop) = (answers.clone(), stop.clone());
        producers.spawn(produce(partitions.clone(), session, epoch, answers, stop));
    }
    for _ in 0..TRANSFERS {
        let before = answers.applied.load(Ordering::Relaxed);
        let leader = nodes.partition(nodes.leader());
        let named = nodes.followers()[0];
        let next = leader.transfer_leader(&BTreeSet::from([named])).await;
        assert_eq!(next.expect("handed over"), named);
        nodes.ready(named).await;
        let goes_on = async {
            while answers.applied.load(Ordering::Relaxed) < before + 10 * PRODUCERS as u64 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, goes_on)
            .await
            .expect("appends go on");
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = producers.join_next().await {
        ended.expect("a producer ends by itself");
    }
    assert_eq!(answers.unknown.load(Ordering::Relaxed), 0);
    let refused = answers.not_applied.load(Ordering::Relaxed);
    assert!(refused > 0, "none met a transfer");
    nodes.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn held_appends_wait_and_go_on() {
    let nodes = Nodes::start(1).await;
    let opened = nodes.write(opening("s")).await.expect("committed");
    let CommandResult::SessionOpened { epoch, .. } = opened else {
        panic!("{opened:?}");
    };
    let partition = nodes.partition(1);
    // Of an idle proposer, all places can be had.
    let held = partition.hold_appends().await.expect("nothing in flight");
    let mut answer = partition.submit(batch("s", epoch, 1)).expect("queued");
    let early = tokio::time::timeout(2 * limits::QUORUM_CHECK_INTERVAL, &mut answer).await;
    assert!(early.is_err(), "it is held");
    drop(held);
    let answer = tokio::time::timeout(PATIENCE, answer).await;
    answer
        .expect("in time")
        .expect("an answer")
        .expect("applied");
    nodes.stop_all().await;
}
