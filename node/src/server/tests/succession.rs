//! What becomes of a leader whose connection breaks.

use std::io;
use std::net::SocketAddr;

use futures::future::BoxFuture;

use super::*;
use crate::config::{ListenConfig, NodeConfig};
use crate::host::{ByteStream, Dial, Listen, Machine};

/// What an accepted connection holds on its way.
const PIPE_BYTES: usize = 64 * 1024;

/// This machine, whose peer port takes no connection, and ends those it has, while
/// it is `cut`.
struct CuttableHost {
    cut: watch::Receiver<bool>,
}

impl Host for CuttableHost {
    fn bind<'a>(
        &'a self,
        listen: &'a ListenConfig,
        port: Port,
    ) -> BoxFuture<'a, Result<Box<dyn Listen>, BindError>> {
        Box::pin(async move {
            let listener = Machine.bind(listen, port).await?;
            if port != Port::Peer {
                return Ok(listener);
            }
            let cut = self.cut.clone();
            Ok(Box::new(CuttablePort { listener, cut }) as Box<dyn Listen>)
        })
    }

    fn dialer(&self) -> Option<Arc<dyn Dial>> {
        Machine.dialer()
    }

    fn open_storage(
        &self,
        node: &NodeConfig,
        options: Options,
    ) -> Result<(Storage, OpenReport), HostStorageError> {
        Machine.open_storage(node, options)
    }
}

#[derive(Debug)]
struct CuttablePort {
    listener: Box<dyn Listen>,
    cut: watch::Receiver<bool>,
}

impl Listen for CuttablePort {
    fn accept(&self) -> BoxFuture<'_, io::Result<(Box<dyn ByteStream>, SocketAddr)>> {
        Box::pin(async move {
            loop {
                let (mut outside, address) = self.listener.accept().await?;
                let mut cut = self.cut.clone();
                if *cut.borrow_and_update() {
                    continue;
                }
                let (taken, mut inside) = tokio::io::duplex(PIPE_BYTES);
                tokio::spawn(async move {
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut outside, &mut inside) => {}
                        // Both ends are dropped, and read as closed.
                        _ = cut.changed() => {}
                    }
                });
                return Ok((Box::new(taken) as Box<dyn ByteStream>, address));
            }
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Nodes {
    fn successions_begun(&self, id: NodeId) -> u64 {
        let metrics = self.running[&id].context.metrics().partition(0);
        metrics.replica.successions_begun.get()
    }

    fn term(&self, id: NodeId) -> u64 {
        use openraft::async_runtime::WatchReceiver as _;
        let metrics = self.partition(id).raft().metrics();
        let metrics = metrics.borrow_watched();
        metrics.current_term
    }

    /// Waits until `id` has asked for votes for the `count`th time since it started
    /// because a leader's connection broke.
    async fn asked_for_votes(&self, id: NodeId, count: u64) {
        let asked = async {
            while self.successions_begun(id) < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, asked).await;
        waited.unwrap_or_else(|_| panic!("node {id} does not ask for votes"));
    }
}

/// The other voters still hear the leader, and grant no vote. The second time shows
/// what came of the first, whose votes have been counted by then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_alone_loses_its_leader_s_connection_changes_no_leader() {
    let cuts: BTreeMap<NodeId, _> = (1..=3).map(|id| (id, watch::Sender::new(false))).collect();
    let on = |(id, cut): (&NodeId, &watch::Sender<bool>)| {
        let cut = cut.subscribe();
        (*id, Arc::new(CuttableHost { cut }) as Arc<dyn Host>)
    };
    let nodes = Nodes::start_on(cuts.iter().map(on).collect()).await;
    let leader = nodes.leader();
    let term = nodes.term(leader);
    let follower = nodes.followers()[0];
    let before = nodes.successions_begun(follower);
    for time in 1..=2 {
        cuts[&follower].send_replace(true);
        nodes.asked_for_votes(follower, before + time).await;
        cuts[&follower].send_replace(false);
        let opened = nodes.write(opening(&format!("s{time}"))).await;
        opened.expect("committed");
        // It has what was written, and so the leader is heard again.
        nodes.ready(follower).await;
        assert_eq!((nodes.leader(), nodes.term(leader)), (leader, term));
        assert_eq!(nodes.term(follower), term);
    }
    nodes.stop_all().await;
}
