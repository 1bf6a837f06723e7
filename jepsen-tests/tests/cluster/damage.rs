//! Damage to a node's data directory, one kind after the other, and what the node
//! makes of it: repairs it and says so, cuts a torn tail and says so, or refuses
//! it with the file, the position, what is missing and what to do.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use huntlog_client::proto::TakeSnapshotRequest;
use huntlog_client::proto::admin_service_client::AdminServiceClient;
use huntlog_jepsen::{Cluster, channel};

use crate::failover::{Acknowledged, Load};
use crate::support::{
    check_all_nodes, check_all_nodes_from, copy_dir, end_offset, ended, get, try_read_node,
};

/// The status of a node that does not run with what it finds.
const REFUSED: i32 = 4;
/// The node whose directory is damaged.
const VICTIM: u64 = 1;

/// What a node makes of its directory.
enum Verdict {
    /// It runs, has everything, and says this; inspecting said whether the
    /// directory is sound.
    Runs { says: &'static str, sound: bool },
    /// It refuses, and says all of this.
    Refuses(&'static [&'static str]),
}

use Verdict::{Refuses, Runs};

/// What a refusal of damage says beside the file.
const REJOIN: &str = "rejoin the cluster under a new node id";

type Row = (&'static str, fn(&Path), Verdict);

fn segments(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join("segments")).expect("there are segments");
    let mut paths: Vec<_> = entries.map(|e| e.expect("readable").path()).collect();
    paths.sort();
    paths
}

fn newest_segment(dir: &Path) -> PathBuf {
    segments(dir).pop().expect("there is one")
}

fn snapshots(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join("snapshots")).expect("there are snapshots");
    let paths = entries.map(|entry| entry.expect("readable").path());
    let snapshots = paths.filter(|path| path.extension().is_some_and(|e| e == "snapshot"));
    snapshots.collect()
}

fn newest_snapshot(dir: &Path) -> PathBuf {
    snapshots(dir).into_iter().max().expect("there is one")
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).expect("there");
    change(&mut bytes);
    fs::write(path, bytes).expect("written");
}

/// The end of what is not zero: behind it is space set aside.
fn used(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).expect("some") + 1
}

const ROWS: &[Row] = &[
    (
        "the index removed",
        |dir| fs::remove_dir_all(dir.join("index")).expect("removed"),
        Runs {
            says: r#""index":"Rebuilt"#,
            sound: false,
        },
    ),
    (
        "the index garbled",
        |dir| {
            change(&dir.join("index/db"), |bytes| {
                (0..bytes.len())
                    .step_by(97)
                    .for_each(|at| bytes[at] ^= 0xff);
            });
        },
        Runs {
            says: r#""index":"Rebuilt"#,
            sound: false,
        },
    ),
    (
        "the high-water mark zeroed",
        |dir| change(&dir.join("mark"), |bytes| bytes.fill(0)),
        Runs {
            says: "the high-water mark is missing or damaged",
            sound: true,
        },
    ),
    (
        "a snapshot's header flipped",
        |dir| change(&newest_snapshot(dir), |bytes| bytes[20] ^= 1),
        Runs {
            says: "set aside",
            sound: false,
        },
    ),
    (
        "a snapshot's state flipped",
        |dir| flip(&newest_snapshot(dir)),
        Runs {
            says: "set aside",
            sound: false,
        },
    ),
    (
        "a torn tail",
        |dir| {
            change(&newest_segment(dir), |bytes| {
                // A batch may end in zeros; the next one begins within these.
                let end = used(bytes) + 16;
                bytes[end..end + 100].fill(7);
            });
        },
        Runs {
            says: "cut a torn tail",
            sound: true,
        },
    ),
    (
        "the last frame flipped",
        |dir| {
            change(&newest_segment(dir), |bytes| {
                let last = used(bytes) - 2;
                bytes[last] ^= 1;
            });
        },
        Refuses(&[
            ".segment is damaged at byte",
            "synced through segment",
            REJOIN,
        ]),
    ),
    (
        "the first frame flipped",
        |dir| change(&newest_segment(dir), |bytes| bytes[70] ^= 1),
        Refuses(&[".segment is damaged at byte 64", "missing", REJOIN]),
    ),
    (
        "a page of the newest segment zeroed",
        |dir| {
            change(&newest_segment(dir), |bytes| {
                let end = used(bytes).min(4096);
                bytes[..end].fill(0);
            });
        },
        Refuses(&[
            ".segment is damaged at byte 0",
            "synced through segment",
            REJOIN,
        ]),
    ),
    (
        "the tail of the newest segment cut",
        |dir| {
            change(&newest_segment(dir), |bytes| {
                let end = used(bytes) - 20;
                bytes.truncate(end);
            });
        },
        Refuses(&[
            ".segment is damaged at byte",
            "synced through segment",
            REJOIN,
        ]),
    ),
    (
        "the oldest segment's first frame flipped",
        |dir| change(&segments(dir)[0], |bytes| bytes[70] ^= 1),
        Refuses(&["1.segment is damaged at byte 64", "cannot be read", REJOIN]),
    ),
    (
        "the oldest segment removed",
        |dir| fs::remove_file(&segments(dir)[0]).expect("removed"),
        Refuses(&[
            "1.segment is damaged at byte 0",
            "the segment is missing",
            REJOIN,
        ]),
    ),
    (
        "the newest segment removed",
        |dir| fs::remove_file(newest_segment(dir)).expect("removed"),
        Refuses(&[
            ".segment is damaged at byte 0",
            "this segment is missing",
            REJOIN,
        ]),
    ),
    (
        "the identity flipped",
        |dir| change(&dir.join("identity"), |bytes| bytes[12] ^= 1),
        Refuses(&["identity is damaged at byte 0", REJOIN]),
    ),
    (
        "the identity removed",
        |dir| fs::remove_file(dir.join("identity")).expect("removed"),
        Refuses(&[
            "identity is damaged at byte 0",
            "is missing, though the log is in use",
            REJOIN,
        ]),
    ),
    (
        "files among the segments that are none",
        |dir| {
            for stray in ["1.segment", "99.segment"] {
                fs::copy(&segments(dir)[0], dir.join("segments").join(stray)).expect("copied");
            }
        },
        Runs {
            says: "this file is no segment and is ignored",
            sound: true,
        },
    ),
    (
        "one slot of the high-water mark flipped",
        |dir| change(&dir.join("mark"), |bytes| bytes[20] ^= 1),
        Runs {
            says: "one of the two slots of the high-water mark is damaged",
            sound: false,
        },
    ),
    (
        "the data version removed",
        |dir| fs::remove_file(dir.join("data-version")).expect("removed"),
        Refuses(&["data-version is damaged at byte 0", "is missing", REJOIN]),
    ),
    (
        "a newer data version",
        |dir| {
            change(&dir.join("data-version"), |bytes| {
                let text = String::from_utf8(bytes.clone()).expect("text");
                let newer = text.replace("version: 2", "version: 3");
                *bytes = newer
                    .replace("release: 0.2.0", "release: 0.3.0")
                    .into_bytes();
            });
        },
        Refuses(&[
            "has data version 3, this release reads versions up to 2",
            "run release 0.3.0 or a newer one",
        ]),
    ),
];

/// A cluster with something in it: several segments, a snapshot in the middle.
async fn cluster_with_history() -> (Cluster, Acknowledged) {
    let (cluster, acknowledged, _) = stopped_after_history().await;
    (cluster, acknowledged)
}

/// That cluster, whose victim is stopped: what was acknowledged, and the offset at
/// the first of its two snapshots.
async fn stopped_after_history() -> (Cluster, Acknowledged, u64) {
    let mut cluster = Cluster::start(3).await.expect("a cluster");
    let mut acknowledged = Acknowledged::new();
    let mut first_snapshot_offset = 0;
    for round in 0..2 {
        let load = Load::start(&cluster, 4).await;
        load.progress(&cluster, 50).await;
        acknowledged.extend(load.finish().await);
        cluster.wait_ready().await.expect("all is applied");
        if round == 0 {
            first_snapshot_offset = end_offset(&cluster).await;
        }
        // A snapshot waits for nothing but what is there, so it is the node's own.
        let address = cluster.node(VICTIM).spec().client_address();
        let channel = channel(&address).await.expect("it listens");
        AdminServiceClient::new(channel)
            .take_snapshot(TakeSnapshotRequest::default())
            .await
            .expect("a snapshot");
        cluster.node(VICTIM).stop().await.expect("stopped");
        cluster.node(VICTIM).start().expect("started");
        cluster.wait_ready().await.expect("it is back");
    }
    cluster.node(VICTIM).stop().await.expect("stopped");
    (cluster, acknowledged, first_snapshot_offset)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_repaired_or_refused_and_always_said() {
    let (mut cluster, acknowledged) = cluster_with_history().await;
    inflict_all(&mut cluster, ROWS, 0, &acknowledged).await;
}

/// Inflicts every damage on the victim, which does not run, one after the other.
/// Nodes keep what begins with `from_offset`.
#[expect(clippy::print_stdout, reason = "a failure is the last one's printed")]
async fn inflict_all(
    cluster: &mut Cluster,
    rows: &[Row],
    from_offset: u64,
    acknowledged: &Acknowledged,
) {
    let dir = cluster.node(VICTIM).spec().data_dir();
    let copy = cluster.dir().join("before");
    for (damage, inflict, verdict) in rows {
        println!("{damage}");
        copy_dir(&dir, &copy);
        inflict(&dir);
        let found = cluster.node(VICTIM).inspect().await.expect("readable");
        let findings = found["findings"].as_array().expect("a list");
        let has = |severity: &str| findings.iter().any(|f| f["severity"] == severity);
        let known = cluster.node(VICTIM).log().len();
        cluster.node(VICTIM).start().expect("started");
        match verdict {
            Runs { says, sound } => {
                assert!(!has("refused"), "{damage}: {findings:?}");
                assert_eq!(!has("repaired"), *sound, "{damage}: {findings:?}");
                cluster.wait_ready().await.expect(damage);
                check_all_nodes_from(cluster, from_offset, acknowledged).await;
                let log = cluster.node(VICTIM).log().split_off(known);
                assert!(log.contains(says), "{damage}: {log}");
                cluster.node(VICTIM).stop().await.expect("stopped");
            }
            Refuses(says) => {
                assert!(has("refused"), "{damage}: {findings:?}");
                let status = ended(cluster.node(VICTIM)).await;
                let log = cluster.node(VICTIM).log().split_off(known);
                assert_eq!(status, REFUSED, "{damage}: {log}");
                for said in *says {
                    assert!(log.contains(said), "{damage}: {said:?} is not in {log}");
                }
                // Put right again, it is this node's directory as before.
                fs::remove_dir_all(&dir).expect("removed");
                copy_dir(&copy, &dir);
            }
        }
        fs::remove_dir_all(&copy).expect("removed");
        let log = cluster.node(VICTIM).log();
        assert!(!log.contains("panicked at"), "{damage}: {log}");
    }
    cluster.node(VICTIM).start().expect("started");
    cluster.wait_ready().await.expect("all is well");
    check_all_nodes_from(cluster, from_offset, acknowledged).await;
}

/// What a log rests on after its retention has released what was before it; the
/// first of these stays.
const ROWS_RELEASED: &[Row] = &[
    (
        "the newest of two snapshots flipped",
        |dir| flip(&newest_snapshot(dir)),
        Runs {
            says: "set aside",
            sound: false,
        },
    ),
    (
        "all snapshots flipped",
        |dir| snapshots(dir).iter().for_each(|path| flip(path)),
        Refuses(&[".snapshot", "no readable snapshot covers them", REJOIN]),
    ),
    (
        "all snapshots removed",
        |dir| {
            fs::remove_dir_all(dir.join("snapshots")).expect("removed");
        },
        Refuses(&["snapshots", "no readable snapshot covers them", REJOIN]),
    ),
    (
        "all snapshots and the index removed",
        |dir| {
            fs::remove_dir_all(dir.join("snapshots")).expect("removed");
            fs::remove_dir_all(dir.join("index")).expect("removed");
        },
        Refuses(&["snapshots", "no readable snapshot covers them", REJOIN]),
    ),
];

fn flip(path: &Path) {
    change(path, |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
}

/// How often history was given up, by the node's log.
fn releases(log: &str) -> usize {
    log.matches("history before this log index is given up")
        .count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_released_log_survives_one_damaged_snapshot_and_is_refused_without_any() {
    let (mut cluster, mut acknowledged, from_offset) = stopped_after_history().await;
    // Only now: a node with a retention takes snapshots of its own, and these two
    // are what the log is to rest on.
    let config = cluster.node(VICTIM).spec().config_file();
    change(&config, |bytes| {
        bytes.extend(b"\n[retention]\nmax_age_seconds = 1\n");
    });
    acknowledged.retain(|_, offsets| offsets.iter().all(|offset| *offset >= from_offset));
    cluster.node(VICTIM).start().expect("started");
    let deadline = Instant::now() + Duration::from_secs(30);
    while releases(&cluster.node(VICTIM).log()) == 0 {
        assert!(Instant::now() < deadline, "{}", cluster.node(VICTIM).log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // From now on it stays as it is.
    change(&config, |bytes| {
        let text = String::from_utf8(bytes.clone()).expect("text");
        *bytes = text
            .replace("max_age_seconds = 1", "max_age_seconds = 0")
            .into_bytes();
    });
    // At once: another round would go on, through the second one.
    cluster.node(VICTIM).kill().await.expect("killed");
    assert_eq!(releases(&cluster.node(VICTIM).log()), 1);
    inflict_all(&mut cluster, ROWS_RELEASED, from_offset, &acknowledged).await;
}

/// What is older than the newest snapshot is not read when the node starts, but
/// when somebody asks for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_old_entry_is_named_and_never_served() {
    let (mut cluster, acknowledged) = cluster_with_history().await;
    let dir = cluster.node(VICTIM).spec().data_dir();
    let oldest = segments(&dir).swap_remove(0);
    change(&oldest, |bytes| {
        // In the middle of a position report, whose payload is all sevens.
        let report = bytes.windows(40).position(|window| window == [7; 40]);
        bytes[report.expect("a position report") + 20] ^= 1;
    });
    let found = cluster.node(VICTIM).inspect().await.expect("readable");
    let file = oldest.display().to_string();
    assert_eq!(found["findings"][0]["severity"], "refused", "{found}");
    assert_eq!(found["findings"][0]["file"], file, "{found}");
    cluster.node(VICTIM).start().expect("started");
    cluster.wait_ready().await.expect("its state is sound");
    let end = end_offset(&cluster).await;
    let status = try_read_node(&cluster, VICTIM, end)
        .await
        .expect_err("an entry is missing");
    assert!(
        status.message().contains("is damaged at byte"),
        "{status:?}"
    );
    assert!(cluster.node(VICTIM).log().contains(&file));
    cluster.node(VICTIM).kill().await.expect("killed");
    check_all_nodes(&cluster, &acknowledged).await;
}

/// The scrub reads what nobody asks for: readiness and the metrics tell what it
/// finds, and the node goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_scrub_finds_what_goes_bad_under_a_running_node() {
    let (mut cluster, mut acknowledged) = cluster_with_history().await;
    let oldest = segments(&cluster.node(VICTIM).spec().data_dir()).swap_remove(0);
    cluster.node(VICTIM).start().expect("started");
    cluster.wait_ready().await.expect("all is well");
    let sound = fs::read(&oldest).expect("readable");
    let report = sound.windows(40).position(|window| window == [7; 40]);
    let position = report.expect("a position report") + 20;
    let original = sound[position];
    let position = position as u64;
    let file = fs::File::options()
        .write(true)
        .open(&oldest)
        .expect("there");
    file.write_all_at(&[8], position).expect("written");

    let admin = cluster.node(VICTIM).spec().admin_address();
    let deadline = Instant::now() + Duration::from_secs(60);
    let said = loop {
        let said = get(&admin, "/readyz").await;
        if said.contains("segment_damaged") {
            break said;
        }
        assert!(Instant::now() < deadline, "{said}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let name = oldest.file_name().expect("a file").to_string_lossy();
    for part in [&*name, "is damaged at byte", "rejoin under a new node id"] {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
    let metrics = get(&admin, "/metrics").await;
    assert!(
        metrics.contains("huntlog_storage_damaged_segments 1\n"),
        "{metrics}"
    );
    let scrubbed = metrics
        .lines()
        .find_map(|line| line.strip_prefix("huntlog_storage_scrubbed_bytes_total "));
    assert!(scrubbed.is_some_and(|bytes| bytes != "0"), "{scrubbed:?}");
    let log = cluster.node(VICTIM).log();
    assert_eq!(log.matches("a segment is damaged").count(), 1, "{log}");

    let load = Load::start(&cluster, 2).await;
    load.progress(&cluster, 20).await;
    acknowledged.extend(load.finish().await);
    cluster.wait_ready().await.expect("it goes on");
    file.write_all_at(&[original], position).expect("put right");
    check_all_nodes(&cluster, &acknowledged).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_of_another_node_or_cluster_is_refused() {
    let mut cluster = Cluster::start(3).await.expect("a cluster");
    let mut other = Cluster::prepare(1, "").expect("files");
    change(&other.node(1).spec().config_file(), |bytes| {
        let text = String::from_utf8(bytes.clone()).expect("text");
        *bytes = text
            .replace(r#"name = "test""#, r#"name = "other""#)
            .into_bytes();
    });
    other.start_all().expect("started");
    other.wait_ready().await.expect("another cluster");
    let mut namesake = Cluster::start(1).await.expect("one of the same name");
    namesake.node(1).stop().await.expect("stopped");
    let load = Load::start(&cluster, 2).await;
    load.progress(&cluster, 20).await;
    other.node(1).stop().await.expect("stopped");
    cluster.node(VICTIM).stop().await.expect("stopped");
    load.progress(&cluster, 20).await;
    cluster.node(2).stop().await.expect("stopped");
    let own = cluster.node(VICTIM).spec().data_dir();
    let aside = cluster.dir().join("aside");
    fs::rename(&own, &aside).expect("moved");
    let foreign = [
        (
            cluster.node(2).spec().data_dir(),
            "the data directory belongs to node id 2",
        ),
        (
            other.node(1).spec().data_dir(),
            "the data directory belongs to cluster",
        ),
        // Only those that the configuration names can tell.
        (
            namesake.node(1).spec().data_dir(),
            "it was emptied or is another's",
        ),
    ];
    cluster.node(2).start().expect("started");
    for (directory, says) in foreign {
        let known = cluster.node(VICTIM).log().len();
        copy_dir(&directory, &own);
        cluster.node(VICTIM).start().expect("started");
        let status = ended(cluster.node(VICTIM)).await;
        let log = cluster.node(VICTIM).log().split_off(known);
        assert_eq!(status, REFUSED, "{log}");
        assert!(log.contains(says), "{log}");
        fs::remove_dir_all(&own).expect("removed");
    }
    fs::rename(&aside, &own).expect("moved back");
    cluster.node(VICTIM).start().expect("started");
    cluster.wait_ready().await.expect("all is well");
    let acknowledged = load.finish().await;
    check_all_nodes(&cluster, &acknowledged).await;
}
