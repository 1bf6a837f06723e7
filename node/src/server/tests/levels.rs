//! Feature levels of whole nodes: formed, refused, put in force, and kept.

use futures::future::BoxFuture;
use huntlog_machine::{FIRST_LEVEL, LATEST_LEVEL, LevelRange, encode_raise_level};
use huntlog_proto::peer;
use huntlog_proto::peer::peer_service_client::PeerServiceClient;
use huntlog_storage::OpenReport;

use super::*;
use crate::cluster::{Change, MemberError, Raised};
use crate::config::{ListenConfig, NodeConfig};
use crate::host::{Dial, Listen, Machine};
use crate::raft::PROTOCOL_VERSION;

/// This machine, under a release that reads other levels.
struct Release(LevelRange);

impl Host for Release {
    fn bind<'a>(
        &'a self,
        listen: &'a ListenConfig,
        port: Port,
    ) -> BoxFuture<'a, Result<Box<dyn Listen>, BindError>> {
        Machine.bind(listen, port)
    }

    fn dialer(&self) -> Option<Arc<dyn Dial>> {
        None
    }

    fn feature_levels(&self) -> LevelRange {
        self.0
    }

    fn open_storage(
        &self,
        node: &NodeConfig,
        options: Options,
    ) -> Result<(Storage, OpenReport), HostStorageError> {
        Machine.open_storage(node, options)
    }
}

const OLD: LevelRange = LevelRange::UNTOLD;
const NEW: LevelRange = LevelRange::SUPPORTED;

async fn start(levels: &[LevelRange]) -> Nodes {
    let hosts = (1..).zip(levels).map(|(id, levels)| {
        let host: Arc<dyn Host> = Arc::new(Release(*levels));
        (id, host)
    });
    Nodes::start_on(hosts.collect()).await
}

impl Nodes {
    /// Starts `id` again, under a release that reads `levels`.
    async fn restart(&mut self, id: NodeId, levels: LevelRange) {
        if self.running.contains_key(&id) {
            self.stop(id).await;
        }
        self.hosts.insert(id, Arc::new(Release(levels)));
        let count = self.hosts.len() as NodeId;
        self.start_node(id, count).await;
        self.ready(id).await;
    }

    async fn finalize(&self) -> Result<Raised, MemberError> {
        let leader = self.leader();
        let changer = self.running[&leader].context.changer().expect("it serves");
        changer.finalize(&self.partition(leader)).await
    }

    /// Waits until every node has applied `level`.
    async fn level_on_all(&self, level: u32) {
        let reached = async {
            while self
                .running
                .keys()
                .any(|id| self.partition(*id).level() != level)
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, reached).await;
        waited.unwrap_or_else(|_| panic!("level {level} is not in force everywhere"));
    }

    fn data_version(&self, id: NodeId) -> u32 {
        self.running[&id].storage.data_version()
    }
}

fn announcement(session: &str, epoch: u64, sequence: u64) -> EncodedCommand {
    encode_batch(&huntlog_machine::Batch {
        session: session.to_owned(),
        epoch,
        sequence,
        expected: Vec::new(),
        events: vec![Event {
            hunt: "nowhere".to_owned(),
            player: String::new(),
            occurred_at: None,
            kind: EventKind::Announced {
                clue: String::new(),
                text: "the well is dry".to_owned(),
            },
        }],
    })
}

async fn epoch(nodes: &Nodes) -> u64 {
    match nodes.write(opening("s")).await {
        Ok(CommandResult::SessionOpened { epoch, .. }) => epoch,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_formed_at_the_highest_level_of_all_members() {
    let nodes = start(&[NEW, NEW, NEW]).await;
    nodes.level_on_all(LATEST_LEVEL).await;
    for id in 1..=3 {
        assert_eq!(nodes.data_version(id), LATEST_LEVEL);
    }
    let raised = nodes.finalize().await.expect("it is in force");
    assert_eq!(
        (raised.level, raised.change),
        (LATEST_LEVEL, Change::AlreadyMade)
    );
    nodes.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_goes_to_a_level_when_all_members_read_it() {
    let mut nodes = start(&[NEW, NEW, OLD]).await;
    let epoch = epoch(&nodes).await;
    nodes.level_on_all(FIRST_LEVEL).await;

    // Before: what the level brings is refused, and nothing of it is written.
    let refused = nodes.write(announcement("s", epoch, 1)).await;
    assert!(
        matches!(refused, Err(WriteError::FeatureLevel { have: 1, need: 2 })),
        "{refused:?}"
    );
    // A leader of the old release knows nothing of this.
    if nodes.leader() != 3 {
        let refused = nodes.finalize().await.expect_err("node 3 is too old");
        let told = refused.to_string();
        assert!(
            matches!(&refused, MemberError::LevelsDiffer { have: 1, need: 2, unable } if unable.len() == 1 && unable[0].0 == 3),
            "{told}"
        );
    }

    // Upgraded, and down again: until then it is as if it had never been.
    nodes.restart(3, NEW).await;
    assert_eq!(nodes.data_version(3), FIRST_LEVEL);
    nodes.restart(3, OLD).await;
    nodes.restart(3, NEW).await;

    // A member that is away may come back under any release.
    let away = nodes.followers()[0];
    nodes.stop(away).await;
    let refused = nodes.finalize().await.expect_err("a member is away");
    assert!(
        matches!(&refused, MemberError::LevelSilent { have: 1, silent } if silent.len() == 1 && silent[0].0 == away),
        "{refused}"
    );
    nodes.restart(away, NEW).await;

    let raised = nodes.finalize().await.expect("all are there and new");
    let expected = Raised {
        level: LATEST_LEVEL,
        change: Change::Made,
        behind: Vec::new(),
    };
    assert_eq!(raised, expected);
    // Nobody is behind: what it brings can be used on each node at once.
    for id in 1..=3 {
        nodes.partition(id).check_level(2).expect("in force");
    }
    let written = nodes.write(announcement("s", epoch, 1)).await;
    assert!(
        matches!(written, Ok(CommandResult::Batch(_))),
        "{written:?}"
    );
    let again = nodes.finalize().await.expect("it is in force");
    assert_eq!(again.change, Change::AlreadyMade);

    // There is no way back.
    let node = nodes.followers()[0];
    assert_eq!(nodes.data_version(node), LATEST_LEVEL);
    nodes.stop(node).await;
    let (config, metrics) = nodes.configuration(node, 3);
    let started = Node::start_on(Arc::new(Release(OLD)), config, metrics).await;
    let error = started.err().expect("the directory is of a later release");
    assert!(
        matches!(&error, NodeError::Open(OpenError::Version { found: 2, supported: 1, release, .. }) if release == "0.2.0"),
        "{error}"
    );
    nodes.restart(node, NEW).await;
    nodes.stop_all().await;
}

/// What finalize prevents: a node that cannot read a level ends, loses nothing,
/// and goes on under a release that can.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_does_not_read_the_level_ends_and_names_the_release_that_does() {
    let mut nodes = start(&[NEW, NEW, OLD]).await;
    if nodes.leader() == 3 {
        let successors = std::collections::BTreeSet::from([1, 2]);
        let handed = nodes.partition(3).transfer_leader(&successors).await;
        handed.expect("another leads");
        nodes.ready(1).await;
    }
    let raised = nodes.write(encode_raise_level(LATEST_LEVEL)).await;
    assert!(
        matches!(raised, Ok(CommandResult::Level(LATEST_LEVEL))),
        "{raised:?}"
    );
    let failure = nodes.failure(3).await;
    assert!(
        matches!(
            &failure,
            NodeError::Apply {
                source: ApplyError::LevelUnknown { level: 2, .. },
                ..
            }
        ),
        "{failure}"
    );
    assert!(failure.to_string().contains("release 0.2.0"), "{failure}");
    nodes.stop(3).await;
    nodes.restart(3, NEW).await;
    nodes.level_on_all(LATEST_LEVEL).await;
    nodes.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_that_do_not_read_the_level_are_refused() {
    let nodes = start(&[NEW]).await;
    nodes.level_on_all(LATEST_LEVEL).await;
    let own = nodes.running[&1].context.peers().identity();
    let server = format!("http://{}:7651", address(1, &nodes.dir));
    let mut client = PeerServiceClient::connect(server)
        .await
        .expect("it listens");
    let mut ask = async |feature_level_max| {
        let header = peer::Header {
            protocol_version: PROTOCOL_VERSION,
            cluster_id: own.cluster_id.clone(),
            from_node_id: 7,
            from_node_uuid: "7".repeat(32),
            to_node_id: 1,
            to_node_uuid: own.node_uuid.clone(),
            feature_level_max,
        };
        let request = peer::ReadIndexRequest {
            header: Some(header),
            partition: 0,
        };
        client.read_index(request).await
    };
    // As a release says that tells no level.
    let refused = ask(0).await.expect_err("it does not read level 2");
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    for part in ["up to 1", "level 2 is in force", "release 0.2.0", "node 7"] {
        assert!(refused.message().contains(part), "{refused}");
    }
    ask(LATEST_LEVEL)
        .await
        .expect("it is not known, and may ask");
    nodes.stop_all().await;
}
