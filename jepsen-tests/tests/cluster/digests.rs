//! I7: a process whose state differs from what its log says ends, and says at
//! which index.

use huntlog_jepsen::Cluster;
use huntlog_machine::{Digest, DigestCheck, EntryBuilder, LATEST_LEVEL};
use huntlog_storage::{LogEntry, LogId, Options, Storage};

use crate::failover::Load;
use crate::support::ended;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_differs_from_the_leader_s_digest_ends() {
    let mut cluster = Cluster::start(1).await.expect("a cluster");
    let load = Load::start(&cluster, 1).await;
    load.progress(&cluster, 10).await;
    load.finish().await;
    cluster.node(1).stop().await.expect("stopped");

    // As if a leader that had come to another state had written an entry.
    let data_dir = cluster.node(1).spec().data_dir();
    let options = Options {
        data_version_max: LATEST_LEVEL,
        ..Options::default()
    };
    let (storage, _) = Storage::open(&data_dir, options).expect("it is closed");
    let log = storage.partition(0);
    let last = log.last().expect("it is not empty");
    let check = DigestCheck {
        index: last.index,
        digest: Digest([7; 16]),
    };
    let entry = LogEntry {
        id: LogId {
            index: last.index + 1,
            ..last
        },
        payload: EntryBuilder::new(0, Some(check)).finish(),
    };
    log.append(vec![entry], Box::new(|_| {}));
    log.wait_durable(last.index + 1).expect("the disk works");
    drop(log);
    storage.close().expect("the disk works");

    cluster.node(1).start().expect("started");
    let code = ended(cluster.node(1)).await;
    assert_ne!(code, 0);
    let log = cluster.node(1).log();
    let told = format!(
        "differs from the leader's at or before log index {}",
        last.index
    );
    assert!(log.contains(&told), "{log}");
}
