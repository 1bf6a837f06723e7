//! Members come and go under load, and what would lose data or the quorum is
//! refused.

use std::fs;
use std::time::Duration;

use huntlog_client::proto::Role;
use huntlog_client::{Client, ClientOptions};
use huntlog_jepsen::{Cluster, NodeProcess, NodeSpec};
use serde_json::Value;

use crate::failover::Load;
use crate::support::get;
use crate::support::{check_all_nodes, ended, huntctl};

/// What a command came to.
pub struct Answer {
    status: i32,
    json: Value,
    error: String,
}

impl Answer {
    #[track_caller]
    pub fn done(self) -> Value {
        assert_eq!(self.status, 0, "{}", self.error);
        self.json
    }

    /// What it printed, whatever it came to.
    pub fn json(&self) -> &Value {
        &self.json
    }

    #[track_caller]
    fn refused(self, reason: &str) -> String {
        assert_eq!(self.status, 3, "{}\n{:#}", self.error, self.json);
        assert!(self.error.contains(reason), "{}", self.error);
        self.error
    }
}

/// Runs huntctl against `endpoints` to its end.
pub async fn ask(endpoints: &[String], arguments: &[&str]) -> Answer {
    let mut command = huntctl(endpoints);
    command.args(["-o", "json"]).args(arguments);
    let output = command.output().await.expect("huntctl starts");
    Answer {
        status: output.status.code().expect("not killed"),
        json: serde_json::from_slice(&output.stdout).unwrap_or_default(),
        error: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The client addresses of the nodes `ids`.
fn endpoints_of(cluster: &Cluster, ids: &[u64]) -> Vec<String> {
    let nodes = cluster.nodes().iter();
    nodes
        .filter(|node| ids.contains(&node.spec().id))
        .map(|node| node.spec().client_address())
        .collect()
}

/// `add ID --peer-address A --client-address B`, or another command of a node.
pub async fn with_node(endpoints: &[String], words: &[&str], node: &NodeSpec) -> Answer {
    let (id, peer, client) = (
        node.id.to_string(),
        node.peer_address(),
        node.client_address(),
    );
    let addresses = ["--peer-address", &peer, "--client-address", &client];
    let arguments = [words, &[&id], &addresses].concat();
    ask(endpoints, &arguments).await
}

/// Starts a new node and waits until it waits to be given a cluster.
pub async fn start_waiting(cluster: &mut Cluster, id: u64) -> NodeSpec {
    start_waiting_with(cluster, id, "").await
}

/// As [`start_waiting`], with `extra` in the node's configuration.
pub async fn start_waiting_with(cluster: &mut Cluster, id: u64, extra: &str) -> NodeSpec {
    let spec = cluster.prepare_node(id, extra).expect("files").clone();
    cluster.node(id).start().expect("started");
    waits(cluster, id).await;
    spec
}

async fn waits(cluster: &Cluster, id: u64) {
    cluster
        .wait_for("a node that waits to be given a cluster", async || {
            let status = cluster.status(id).await?;
            status.cluster_id.is_empty().then_some(())
        })
        .await
        .expect("it listens");
}

/// A node as `cluster init` takes it.
fn as_member(node: &NodeProcess) -> String {
    let spec = node.spec();
    let (peer, client) = (spec.peer_address(), spec.client_address());
    format!("--member={}={peer},{client}", spec.id)
}

async fn voters(endpoints: &[String]) -> Vec<u64> {
    let list = ask(endpoints, &["member", "list"]).await.done();
    let members = list["members"].as_array().expect("members");
    members
        .iter()
        .filter(|member| member["voter"] == true)
        .map(|member| member["node_id"].as_u64().expect("an id"))
        .collect()
}

/// Waits until the removed node has ended by itself, saying why.
async fn ends_removed(cluster: &mut Cluster, id: u64) {
    assert_eq!(ended(cluster.node(id)).await, 4);
    let log = cluster.node(id).log();
    assert!(log.contains("was removed from cluster"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_grows_and_shrinks_under_load() {
    let mut cluster = Cluster::start(3).await.expect("a cluster");
    let load = Load::start(&cluster, 4).await;
    load.progress(&cluster, 100).await;
    for id in [4, 5] {
        let node = start_waiting(&mut cluster, id).await;
        // Any node takes it: here one that may not lead.
        let endpoints = endpoints_of(&cluster, &[id - 2]);
        let added = with_node(&endpoints, &["member", "add"], &node)
            .await
            .done();
        assert_eq!(added["already_done"], false);
        let again = with_node(&endpoints, &["member", "add"], &node)
            .await
            .done();
        assert_eq!(again["already_done"], true);
        let id = id.to_string();
        let promoted = ask(&endpoints, &["member", "promote", &id]).await.done();
        assert_eq!(promoted["already_done"], false);
        load.progress(&cluster, 50).await;
    }
    cluster.wait_ready().await.expect("all serve");
    assert_eq!(voters(&cluster.endpoints()).await, [1, 2, 3, 4, 5]);

    // The leader first, then another one; both end by themselves.
    let leader = cluster.leader().await.expect("a leader");
    let other = leader % 5 + 1;
    for id in [leader, other] {
        let name = id.to_string();
        let endpoints = cluster.endpoints();
        let removed = ask(&endpoints, &["member", "remove", &name]).await.done();
        assert_eq!(removed["already_done"], false);
        ends_removed(&mut cluster, id).await;
        load.progress(&cluster, 50).await;
    }
    // Nothing is told any more of those who are gone.
    let now = cluster.leader().await.expect("a leader");
    let admin_address = cluster.node(now).spec().admin_address();
    let metrics = get(&admin_address, "/metrics").await;
    for id in [leader, other] {
        let gauge = format!("peer=\"{id}\"");
        assert!(!metrics.contains(&gauge), "{gauge} is in\n{metrics}");
    }
    let rest: Vec<u64> = (1..=5).filter(|id| ![leader, other].contains(id)).collect();
    let endpoints = endpoints_of(&cluster, &rest);
    assert_eq!(voters(&endpoints).await, rest);
    let name = leader.to_string();
    let again = ask(&endpoints, &["member", "remove", &name]).await.done();
    assert_eq!(again["already_done"], true);

    // What was removed stays out: restarted with its data, and without.
    cluster.node(other).start().expect("started");
    ends_removed(&mut cluster, other).await;
    let data_dir = cluster.node(leader).spec().data_dir();
    fs::remove_dir_all(&data_dir).expect("emptied");
    rewrite_without_members(&mut cluster, leader);
    cluster.node(leader).start().expect("started");
    waits(&cluster, leader).await;
    let spec = cluster.node(leader).spec().clone();
    let refused = with_node(&endpoints, &["member", "add"], &spec).await;
    refused.refused("ID_RETIRED");
    cluster.node(leader).stop().await.expect("stopped");

    // The members are those of the log, whatever the configurations say.
    load.progress(&cluster, 50).await;
    for id in &rest {
        cluster.node(*id).kill().await.expect("killed");
    }
    for id in &rest {
        cluster.node(*id).start().expect("started again");
    }
    cluster.wait_ready().await.expect("all come back");
    assert_eq!(voters(&endpoints).await, rest);
    load.progress(&cluster, 50).await;
    let acknowledged = load.finish().await;
    check_all_nodes(&cluster, &acknowledged).await;
}

/// Rewrites a node's configuration so that it waits to be given a cluster.
fn rewrite_without_members(cluster: &mut Cluster, id: u64) {
    let file = cluster.node(id).spec().config_file();
    let text = fs::read_to_string(&file).expect("readable");
    let members = text.find("[[cluster.initial_members]]");
    fs::write(&file, &text[..members.unwrap_or(text.len())]).expect("written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_node_is_replaced_under_a_new_id() {
    let mut cluster = Cluster::start(3).await.expect("a cluster");
    let load = Load::start(&cluster, 4).await;
    load.progress(&cluster, 100).await;
    let dead = cluster.leader().await.expect("a leader");
    cluster.node(dead).kill().await.expect("killed");
    load.progress(&cluster, 20).await;
    let node = start_waiting(&mut cluster, 4).await;
    let alive: Vec<u64> = (1..=3).filter(|id| *id != dead).collect();
    let endpoints = endpoints_of(&cluster, &alive);
    let old = dead.to_string();
    let words = ["member", "replace", &old];
    with_node(&endpoints, &words, &node).await.done();
    let again = with_node(&endpoints, &words, &node).await.done();
    assert_eq!(again["already_done"], true);
    load.progress(&cluster, 50).await;
    let members = [alive, vec![4]].concat();
    assert_eq!(voters(&endpoints).await, members);

    // The dead one comes back, is told, and disturbs nobody.
    let term = cluster
        .status(members[0])
        .await
        .expect("it answers")
        .partitions[0]
        .term;
    cluster.node(dead).start().expect("started");
    ends_removed(&mut cluster, dead).await;
    load.progress(&cluster, 50).await;
    let now = cluster
        .status(members[0])
        .await
        .expect("it answers")
        .partitions[0]
        .term;
    assert_eq!(term, now, "no election was held");

    // An emptied node is refused under its old id, though it was added.
    cluster.node(4).kill().await.expect("killed");
    fs::remove_dir_all(node.data_dir()).expect("emptied");
    cluster.node(4).start().expect("started");
    assert_eq!(ended(cluster.node(4)).await, 4);
    let log = cluster.node(4).log();
    assert!(log.contains("an id never used before"), "{log}");
    let acknowledged = load.finish().await;
    check_all_nodes(&cluster, &acknowledged).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_loses_the_quorum_is_refused_unless_forced() {
    let mut cluster = Cluster::start(3).await.expect("a cluster");
    let leader = cluster.leader().await.expect("a leader");
    let [silent, live] = [leader % 3 + 1, (leader + 1) % 3 + 1];
    let load = Load::start(&cluster, 2).await;
    load.progress(&cluster, 20).await;
    cluster.node(silent).pause().expect("paused");
    let endpoints = endpoints_of(&cluster, &[leader, live]);
    let name = live.to_string();
    let error = ask(&endpoints, &["member", "remove", &name])
        .await
        .refused("QUORUM_AT_RISK");
    assert!(error.contains("nothing was applied"), "{error}");
    assert!(
        error.contains("only 1 would answer and 2 are needed"),
        "{error}"
    );
    assert_eq!(voters(&endpoints).await, [1, 2, 3]);
    load.progress(&cluster, 20).await;

    // Forced, it is in the log and waits for the silent one.
    let forced = ask(&endpoints, &["member", "remove", &name, "--force"]).await;
    assert_eq!(forced.status, 4, "{}", forced.error);
    assert!(
        forced.error.contains("CHANGE_UNFINISHED"),
        "{}",
        forced.error
    );
    assert!(
        forced
            .error
            .contains("forced in spite of this: QUORUM_AT_RISK"),
        "{}",
        forced.error
    );
    // One change at a time.
    let other = silent.to_string();
    ask(&endpoints, &["member", "remove", &other])
        .await
        .refused("CHANGE_IN_PROGRESS");
    cluster.node(silent).resume().expect("resumed");
    ends_removed(&mut cluster, live).await;
    load.progress(&cluster, 20).await;
    let left = endpoints_of(&cluster, &[leader, silent]);
    let mut rest = vec![leader, silent];
    rest.sort_unstable();
    assert_eq!(voters(&left).await, rest);

    // The last two: one more may go while both answer, and the last may not.
    let acknowledged = load.finish().await;
    check_all_nodes(&cluster, &acknowledged).await;
    let name = rest[0].to_string();
    ask(&left, &["member", "remove", &name]).await.done();
    ends_removed(&mut cluster, rest[0]).await;
    let last = endpoints_of(&cluster, &rest[1..]);
    let name = rest[1].to_string();
    ask(&last, &["member", "remove", &name])
        .await
        .refused("LAST_VOTER");
    check_all_nodes(&cluster, &acknowledged).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_can_not_be_added_is_told_why() {
    let mut cluster = Cluster::start(3).await.expect("a cluster");
    let endpoints = cluster.endpoints();
    let known = cluster.nodes()[1].spec().clone();
    let add = ["member", "add"];

    let node = start_waiting(&mut cluster, 4).await;
    let as_known = NodeSpec {
        id: 2,
        ..node.clone()
    };
    with_node(&endpoints, &add, &as_known)
        .await
        .refused("MEMBER_EXISTS");
    let at_known = NodeSpec {
        id: 4,
        ..known.clone()
    };
    with_node(&endpoints, &add, &at_known)
        .await
        .refused("ADDRESS_TAKEN");
    let another_id = NodeSpec {
        id: 7,
        ..node.clone()
    };
    let error = with_node(&endpoints, &add, &another_id)
        .await
        .refused("WRONG_NODE");
    assert!(error.contains("is node 4, not node 7"), "{error}");
    ask(&endpoints, &["member", "promote", "4"])
        .await
        .refused("NOT_FOUND");
    ask(&endpoints, &["member", "remove", "4"])
        .await
        .refused("NOT_FOUND");

    // Nobody there, and a node of another cluster.
    let absent = cluster.prepare_node(5, "").expect("files").clone();
    with_node(&endpoints, &add, &absent)
        .await
        .refused("NODE_UNREACHABLE");
    let mut other = Cluster::prepare_waiting(0).expect("files");
    let foreign = start_waiting(&mut other, 6).await;
    let itself = as_member(&other.nodes()[0]);
    ask(&other.endpoints(), &["cluster", "init", &itself])
        .await
        .done();
    let error = with_node(&endpoints, &add, &foreign)
        .await
        .refused("WRONG_NODE");
    assert!(error.contains("belongs to cluster"), "{error}");

    // A learner that dies is not promoted, and can be removed.
    with_node(&endpoints, &add, &node).await.done();
    cluster.node(4).kill().await.expect("killed");
    ask(&endpoints, &["member", "promote", "4"])
        .await
        .refused("NODE_SILENT");
    ask(&endpoints, &["member", "remove", "4"]).await.done();
    assert_eq!(voters(&endpoints).await, [1, 2, 3]);
    cluster.node(4).start().expect("started");
    ends_removed(&mut cluster, 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_formed_by_hand_and_once() {
    let mut cluster = Cluster::prepare_waiting(3).expect("files");
    cluster.start_all().expect("started");
    for id in 1..=3 {
        waits(&cluster, id).await;
    }
    // Alive, not ready, and saying what for.
    let admin_address = cluster.nodes()[0].spec().admin_address();
    let probe = get(&admin_address, "/livez").await;
    assert!(probe.starts_with("HTTP/1.1 200"), "{probe}");
    let probe = get(&admin_address, "/readyz").await;
    assert!(probe.starts_with("HTTP/1.1 503"), "{probe}");
    assert!(probe.contains("huntctl cluster init"), "{probe}");
    let members: Vec<String> = cluster.nodes().iter().map(as_member).collect();
    let mut init = vec!["cluster", "init"];
    init.extend(members.iter().map(String::as_str));

    // A missing member forms nothing.
    cluster.node(3).kill().await.expect("killed");
    let briefly = [&["--timeout", "2s"], &init[..]].concat();
    let error = ask(&endpoints_of(&cluster, &[1]), &briefly).await;
    assert_ne!(error.status, 0);
    assert!(error.error.contains("NODE_UNREACHABLE"), "{}", error.error);
    waits(&cluster, 1).await;
    cluster.node(3).start().expect("started");
    waits(&cluster, 3).await;

    // Asked of one that does not form it: the client goes on to the one that
    // does.
    let second = endpoints_of(&cluster, &[2]);
    let formed = ask(&second, &init).await.done();
    assert_eq!(formed["already_formed"], false);
    cluster.wait_ready().await.expect("all serve");
    let cluster_id = formed["cluster_id"].clone();
    for id in 1..=3 {
        let again = ask(&endpoints_of(&cluster, &[id]), &init).await.done();
        assert_eq!(again["already_formed"], true);
        assert_eq!(again["cluster_id"], cluster_id);
    }
    let load = Load::start(&cluster, 2).await;
    load.progress(&cluster, 20).await;
    let acknowledged = load.finish().await;
    check_all_nodes(&cluster, &acknowledged).await;

    // A cluster that its configurations form is there already.
    let configured = Cluster::start(1).await.expect("a cluster of one");
    let there = ask(&configured.endpoints(), &["cluster", "init"])
        .await
        .done();
    assert_eq!(there["already_formed"], true);
}

/// "Done already" is the answer to the very same request only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_there_is_not_taken_for_something_else() {
    let mut cluster = Cluster::prepare_waiting(2).expect("files");
    cluster.start_all().expect("started");
    for id in [1, 2] {
        waits(&cluster, id).await;
    }
    let first = endpoints_of(&cluster, &[1]);
    // One that waits says what for.
    let briefly = ["--timeout", "1s", "hunt", "list"];
    let waiting = ask(&first, &briefly).await.error;
    assert!(waiting.contains("huntctl cluster init"), "{waiting}");
    let members: Vec<String> = cluster.nodes().iter().map(as_member).collect();
    let init = |members: &[String]| {
        let words = ["cluster", "init"].map(str::to_owned);
        [&words[..], members].concat()
    };
    let ask_init = async |endpoints: &[String], members: &[String]| {
        let words = init(members);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        ask(endpoints, &words).await
    };
    let formed = ask_init(&first, &members).await.done();
    assert_eq!(formed["already_formed"], false);
    assert_eq!(formed["warnings"], serde_json::json!([]));
    assert_eq!(
        ask_init(&first, &members).await.done()["already_formed"],
        true
    );

    // Three were never there, whoever is asked.
    let third = start_waiting(&mut cluster, 3).await;
    let more: Vec<String> = cluster.nodes().iter().map(as_member).collect();
    for id in [1, 2, 3] {
        let error = ask_init(&endpoints_of(&cluster, &[id]), &more)
            .await
            .refused("MEMBERS_DIFFER");
        for listed in &more {
            let listed = listed.trim_start_matches("--member=");
            assert!(error.contains(listed), "{listed}: {error}");
        }
        assert!(error.contains("nothing was applied"), "{error}");
    }
    // Nor was the second one elsewhere.
    let unused = cluster.prepare_node(4, "").expect("files").clone();
    let spec = cluster.nodes()[1].spec();
    let (peer, client) = (spec.peer_address(), spec.client_address());
    let moved = format!("--member=2={peer},{}", unused.client_address());
    let error = ask_init(&first, &[members[0].clone(), moved])
        .await
        .refused("MEMBERS_DIFFER");
    assert!(error.contains(&client), "{error}");
    assert!(error.contains(&unused.client_address()), "{error}");

    // The same for a member that is added. Clients that are to look for it where
    // nobody answers are worth a warning, where another node does a refusal.
    let peer = third.peer_address();
    let add_at = async |client_address: &str| {
        let words = ["member", "add", "3", "--peer-address", &peer];
        let words = [&words[..], &["--client-address", client_address]].concat();
        ask(&first, &words).await
    };
    let mut other = Cluster::start(1).await.expect("another cluster");
    let elsewhere = other.nodes()[0].spec().client_address();
    add_at(&elsewhere).await.refused("WRONG_NODE");
    other.node(1).kill().await.expect("killed");
    let added = add_at(&elsewhere).await;
    assert!(added.error.contains("warning"), "{}", added.error);
    let added = added.done();
    assert_eq!(added["already_done"], false);
    assert_eq!(add_at(&elsewhere).await.done()["already_done"], true);
    let error = add_at(&third.client_address())
        .await
        .refused("MEMBER_EXISTS");
    assert!(error.contains(&elsewhere), "{error}");
    assert!(error.contains(&third.client_address()), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_goes_to_the_one_that_is_named() {
    let cluster = Cluster::start(3).await.expect("a cluster");
    let load = Load::start(&cluster, 4).await;
    for round in 0..3 {
        load.progress(&cluster, 50).await;
        let leader = cluster.leader().await.expect("a leader");
        let to = if round % 2 == 0 {
            leader % 3 + 1
        } else {
            (leader + 1) % 3 + 1
        };
        let name = to.to_string();
        let answer = ask(&cluster.endpoints(), &["leader", "transfer", "--to", &name]).await;
        assert_eq!(answer.done()["leader_id"], to);
        assert_eq!(cluster.leader().await.expect("a leader"), to);
    }
    let endpoints = cluster.endpoints();
    ask(&endpoints, &["leader", "transfer", "--to", "9"])
        .await
        .refused("INVALID");
    load.progress(&cluster, 50).await;
    let acknowledged = load.finish().await;
    check_all_nodes(&cluster, &acknowledged).await;
}

/// A change has two steps. Its leader dies when the first is in the log and not
/// committed; whoever leads next finishes it, the one to be removed included.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_whose_leader_dies_is_finished_by_the_next() {
    let mut cluster = Cluster::start(3).await.expect("a cluster");
    let leader = cluster.leader().await.expect("a leader");
    let [silent, live] = [leader % 3 + 1, (leader + 1) % 3 + 1];
    let load = Load::start(&cluster, 2).await;
    load.progress(&cluster, 20).await;
    cluster.node(silent).pause().expect("paused");
    let endpoints = endpoints_of(&cluster, &[leader]);
    let name = live.to_string();
    let briefly = ["--timeout", "2s", "member", "remove", &name, "--force"];
    let forced = ask(&endpoints, &briefly).await;
    assert_eq!(forced.status, 4, "{}", forced.error);
    let list = ask(&endpoints, &["member", "list"]).await.done();
    assert_eq!(list["change_in_progress"], true, "{list:#}");

    cluster.node(leader).kill().await.expect("killed");
    cluster.node(silent).resume().expect("resumed");
    cluster.node(leader).start().expect("started again");
    ends_removed(&mut cluster, live).await;
    let left = endpoints_of(&cluster, &[leader, silent]);
    let mut rest = vec![leader, silent];
    rest.sort_unstable();
    assert_eq!(voters(&left).await, rest);
    load.progress(&cluster, 20).await;
    let acknowledged = load.finish().await;
    check_all_nodes(&cluster, &acknowledged).await;
}

/// The coordinator dies as soon as it has chosen the cluster's id: the same
/// command, repeated, finishes what it began.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forming_a_cluster_survives_the_death_of_who_forms_it() {
    let mut cluster = Cluster::prepare_waiting(3).expect("files");
    cluster.start_all().expect("started");
    for id in 1..=3 {
        waits(&cluster, id).await;
    }
    let members: Vec<String> = cluster.nodes().iter().map(as_member).collect();
    let mut init = vec!["cluster", "init"];
    init.extend(members.iter().map(String::as_str));
    let endpoints = endpoints_of(&cluster, &[1]);
    let mut command = huntctl(&endpoints);
    let mut first = command.args(&init).spawn().expect("huntctl starts");
    let chosen = cluster
        .wait_for("the cluster's id", async || {
            let status = cluster.status(1).await?;
            (!status.cluster_id.is_empty()).then_some(status.cluster_id)
        })
        .await
        .expect("it is chosen");
    cluster.node(1).kill().await.expect("killed");
    first.kill().await.expect("killed");
    cluster.node(1).start().expect("started again");
    let formed = ask(&endpoints, &init).await.done();
    assert_eq!(formed["cluster_id"], chosen.as_str());
    cluster.wait_ready().await.expect("all serve");
    assert_eq!(voters(&endpoints).await, [1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_node_does_not_lead_until_it_is_taken_back() {
    let cluster = Cluster::start(3).await.expect("a cluster");
    let load = Load::start(&cluster, 4).await;
    load.progress(&cluster, 50).await;
    // Two of three, each while it leads: leadership ends up with the third.
    let mut drained = Vec::new();
    for _ in 0..2 {
        let leader = cluster.leader().await.expect("a leader");
        assert!(!drained.contains(&leader), "a drained node leads");
        let there = endpoints_of(&cluster, &[leader]);
        let answer = ask(&there, &["node", "drain"]).await.done();
        assert_eq!(answer["draining"], true);
        drained.push(leader);
        cluster
            .wait_for("a leader that is in service", async || {
                let now = cluster.leader().await.ok()?;
                (!drained.contains(&now)).then_some(())
            })
            .await
            .expect("somebody takes over");
        load.progress(&cluster, 50).await;
    }
    let away = endpoints_of(&cluster, &drained[..1]);
    // It takes nothing itself, and a client that knows no other finds one.
    let options = ClientOptions {
        timeout: Duration::from_secs(1),
        follow_leader: false,
        ..ClientOptions::default()
    };
    let alone = Client::connect(&away, options).expect("an address");
    let refused = alone.session("s").await.expect_err("drained").to_string();
    assert!(refused.contains("DRAINING"), "{refused}");
    assert!(
        refused.contains("an operator has drained this node"),
        "{refused}"
    );
    let event = r#"{"hunt":"pier","custom":{"type":"position","text":"here"}}"#;
    ask(&away, &["event", "append", event]).await.done();
    let health = ask(&cluster.endpoints(), &["cluster", "health"]).await;
    assert_eq!(health.json["healthy"], false, "{:#}", health.json);

    let name = drained[0].to_string();
    let transfer = ["leader", "transfer", "--to", &name];
    ask(&cluster.endpoints(), &transfer)
        .await
        .refused("NODE_DRAINED");
    let answer = ask(&away, &["node", "undrain"]).await.done();
    assert_eq!(answer["draining"], false);
    let answer = ask(&cluster.endpoints(), &transfer).await.done();
    assert_eq!(answer["leader_id"], drained[0]);
    load.progress(&cluster, 50).await;
    let acknowledged = load.finish().await;
    check_all_nodes(&cluster, &acknowledged).await;
}

/// Who of the members `list` names as drained.
fn drained_of(list: &Value) -> Vec<u64> {
    let members = list["members"].as_array().expect("members").iter();
    members
        .filter(|member| member["draining"] == true)
        .map(|member| member["node_id"].as_u64().expect("an id"))
        .collect()
}

/// The last node in service can not be drained; when it dies, a drained one leads
/// and takes writes, without leadership going around, until it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drained_nodes_lead_only_while_nobody_else_can() {
    let mut cluster = Cluster::start(3).await.expect("a cluster");
    let load = Load::start(&cluster, 2).await;
    load.progress(&cluster, 20).await;
    let last = cluster.leader().await.expect("a leader");
    let mut drained = vec![last % 3 + 1, (last + 1) % 3 + 1];
    drained.sort_unstable();
    for id in &drained {
        let there = endpoints_of(&cluster, &[*id]);
        ask(&there, &["node", "drain"]).await.done();
    }
    // It may be said twice.
    let again = endpoints_of(&cluster, &drained[..1]);
    ask(&again, &["node", "drain"]).await.done();
    let there = endpoints_of(&cluster, &[last]);
    let error = ask(&there, &["node", "drain"])
        .await
        .refused("LAST_IN_SERVICE");
    assert!(error.contains("nothing was applied"), "{error}");
    assert!(
        error.contains(&format!("node {} is drained", drained[0])),
        "{error}"
    );
    let list = ask(&there, &["member", "list"]).await.done();
    assert_eq!(drained_of(&list), drained, "{list:#}");
    let status = ask(&there, &["cluster", "status"]).await.done();
    for node in status.as_array().expect("nodes") {
        let serves = node["node_id"] == last;
        assert_eq!(node["draining"], !serves, "{node:#}");
        assert_eq!(node["partitions"][0]["ready"], serves, "{node:#}");
    }
    load.progress(&cluster, 20).await;
    assert_eq!(cluster.leader().await.expect("a leader"), last);

    cluster.node(last).kill().await.expect("killed");
    load.progress(&cluster, 50).await;
    let leader = cluster.leader().await.expect("a leader");
    assert!(drained.contains(&leader));
    let term = async || {
        let status = cluster.status(leader).await.expect("it answers");
        status.partitions[0].term
    };
    let before = term().await;
    load.progress(&cluster, 300).await;
    assert_eq!(term().await, before, "leadership stays");

    cluster.node(last).start().expect("started again");
    let back = cluster.wait_for("leadership of the node in service", async || {
        let leader = cluster.leader().await.ok()?;
        (leader == last).then_some(())
    });
    back.await.expect("it leads again");
    load.progress(&cluster, 20).await;
    let acknowledged = load.finish().await;
    check_all_nodes(&cluster, &acknowledged).await;
}

/// A leader that has nobody to hand over to keeps its leadership, and says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_not_handed_to_a_node_that_does_not_answer() {
    let mut cluster = Cluster::start(3).await.expect("a cluster");
    let load = Load::start(&cluster, 4).await;
    load.progress(&cluster, 50).await;
    let leader = cluster.leader().await.expect("a leader");
    let [silent, other] = [leader % 3 + 1, (leader + 1) % 3 + 1];
    let endpoints = endpoints_of(&cluster, &[leader]);
    let leads = async |cluster: &Cluster| {
        let status = cluster.status(leader).await.expect("it answers");
        let partition = &status.partitions[0];
        (partition.role(), partition.term)
    };
    let before = leads(&cluster).await;
    assert_eq!(before.0, Role::Leader);

    cluster.node(silent).pause().expect("paused");
    let name = silent.to_string();
    let transfer = ["leader", "transfer", "--to", &name];
    let error = ask(&endpoints, &transfer).await.refused("NODE_SILENT");
    assert!(error.contains("nothing was applied"), "{error}");
    load.progress(&cluster, 20).await;
    assert_eq!(leads(&cluster).await, before);

    // Without a quorum neither is anybody named nor anybody found.
    cluster.node(other).pause().expect("paused");
    ask(&endpoints, &transfer).await.refused("NODE_SILENT");
    let error = ask(&endpoints, &["leader", "transfer"])
        .await
        .refused("NO_SUCCESSOR");
    assert!(
        error.contains(&format!("node {other} does not answer")),
        "{error}"
    );
    assert_eq!(leads(&cluster).await, before);
    // The status says what the probe says.
    let admin_address = cluster.node(leader).spec().admin_address();
    cluster
        .wait_for("a leader that is not ready", async || {
            let status = cluster.status(leader).await?;
            (!status.partitions[0].ready).then_some(())
        })
        .await
        .expect("it notices");
    let probe = get(&admin_address, "/readyz").await;
    assert!(probe.starts_with("HTTP/1.1 503"), "{probe}");

    cluster.node(silent).resume().expect("resumed");
    cluster.node(other).resume().expect("resumed");
    cluster.wait_ready().await.expect("all serve");
    load.progress(&cluster, 20).await;
    let acknowledged = load.finish().await;
    check_all_nodes(&cluster, &acknowledged).await;
}

/// Repeats a change until it is done: an operator may, whatever became of the
/// first attempt.
async fn until_done(cluster: &Cluster, members: &[u64], arguments: &[&str]) {
    let mut last = String::new();
    let done = cluster.wait_for("a change of the members", async || {
        let answer = ask(&endpoints_of(cluster, members), arguments).await;
        last = answer.error;
        (answer.status == 0).then_some(())
    });
    let done = done.await;
    done.unwrap_or_else(|error| panic!("{arguments:?}: {last}\n{error}"));
}

/// Who of `members` leads; a node that waits knows of no leader.
async fn leader_among(cluster: &Cluster, members: &[u64]) -> u64 {
    cluster
        .wait_for("a leader among the members", async || {
            for id in members {
                let status = cluster.status(*id).await?;
                if status.partitions.first()?.role() == Role::Leader {
                    return Some(*id);
                }
            }
            None
        })
        .await
        .expect("somebody leads")
}

/// Nodes are added and removed as the seed says, for HUNTLOG_MEMBER_SECONDS (10
/// when not set), and the leader is killed in the middle of every other change.
/// HUNTLOG_MEMBER_SEED repeats a choice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_changes_with_dying_leaders_lose_and_repeat_nothing() {
    let setting = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
    };
    let seconds = setting("HUNTLOG_MEMBER_SECONDS", 10);
    let mut random = setting("HUNTLOG_MEMBER_SEED", u64::from(std::process::id()));
    println!("repeat with HUNTLOG_MEMBER_SEED={random}");
    let mut cluster = Cluster::start(3).await.expect("a cluster");
    let load = Load::start(&cluster, 4).await;
    let mut members = vec![1, 2, 3];
    let mut next_id = 4;
    let end = tokio::time::Instant::now() + Duration::from_secs(seconds);
    while tokio::time::Instant::now() < end || next_id == 4 {
        // xorshift64: any sequence that a seed repeats will do.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let grows = match members.len() {
            ..=3 => true,
            4 => random & 1 == 0,
            _ => false,
        };
        let kills = random & 2 == 0;
        let commands: Vec<Vec<String>> = if grows {
            let node = start_waiting(&mut cluster, next_id).await;
            let id = next_id.to_string();
            let add = format!(
                "member add {id} --peer-address {} --client-address {}",
                node.peer_address(),
                node.client_address()
            );
            let promote = format!("member promote {id}");
            [add, promote]
                .iter()
                .map(|line| line.split(' ').map(str::to_owned).collect())
                .collect()
        } else {
            // The first stays: it is an address that the clients were given.
            let others = &members[1..];
            let leaves = others[usize::try_from(random >> 8).unwrap_or(0) % others.len()];
            vec![vec!["member".into(), "remove".into(), leaves.to_string()]]
        };
        for command in &commands {
            let command: Vec<&str> = command.iter().map(String::as_str).collect();
            if kills {
                let leader = leader_among(&cluster, &members).await;
                let endpoints = endpoints_of(&cluster, &members);
                let mut first = huntctl(&endpoints);
                let mut first = first.args(&command).spawn().expect("huntctl starts");
                load.progress(&cluster, random >> 16 & 3).await;
                cluster.node(leader).kill().await.expect("killed");
                cluster.node(leader).start().expect("started again");
                // Done, refused, or not known: what follows finds out.
                let _ = first.wait().await.expect("a child of ours");
            }
            until_done(&cluster, &members, &command).await;
        }
        if grows {
            members.push(next_id);
            next_id += 1;
        } else {
            let leaves: u64 = commands[0][2].parse().expect("an id");
            members.retain(|id| *id != leaves);
            ends_removed(&mut cluster, leaves).await;
        }
        load.progress(&cluster, 20).await;
    }
    cluster.wait_ready().await.expect("all serve");
    assert_eq!(voters(&endpoints_of(&cluster, &members)).await, members);
    let acknowledged = load.finish().await;
    check_all_nodes(&cluster, &acknowledged).await;
}
