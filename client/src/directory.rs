//! Which node to talk to: the ones given, the ones learned, who leads, and who
//! has failed lately. Pure; the driver passes the time.

use std::sync::Arc;
use std::time::Duration;

use crate::limits;

#[derive(Debug)]
struct Node {
    address: Arc<str>,
    /// Named by the user, and kept whatever the cluster says.
    given: bool,
    /// Failures in a row.
    strikes: u32,
    /// Left alone until then, if another can be tried.
    suspect_until: Duration,
    /// It belongs to another cluster, as it said last.
    foreign: bool,
}

#[derive(Debug)]
pub(crate) struct Directory {
    /// Those that were not given: the longer nobody has named them, the earlier.
    nodes: Vec<Node>,
    leader: Option<Arc<str>>,
    /// Whom to try first when no leader is known.
    next: usize,
    follow_leader: bool,
}

impl Directory {
    pub(crate) fn new(addresses: Vec<Arc<str>>, follow_leader: bool) -> Self {
        let mut directory = Self {
            nodes: Vec::new(),
            leader: None,
            next: 0,
            follow_leader,
        };
        for address in addresses {
            let index = directory.add(&address);
            directory.nodes[index].given = true;
        }
        directory
    }

    /// Where it stands, from now on if it was not known.
    fn add(&mut self, address: &str) -> usize {
        if let Some(index) = self.find(address) {
            return index;
        }
        let learned = |node: &Node| !node.given;
        if self.nodes.iter().filter(|node| learned(node)).count() >= limits::LEARNED_NODES
            && let Some(longest_unnamed) = self.nodes.iter().position(learned)
        {
            self.nodes.remove(longest_unnamed);
            self.next -= usize::from(longest_unnamed < self.next);
        }
        self.nodes.push(Node {
            address: address.into(),
            given: false,
            strikes: 0,
            suspect_until: Duration::ZERO,
            foreign: false,
        });
        self.nodes.len() - 1
    }

    fn find(&self, address: &str) -> Option<usize> {
        self.nodes.iter().position(|node| &*node.address == address)
    }

    /// The leader if one is known and not failing, else the next node that is
    /// not, else the one whose quarantine ends first.
    pub(crate) fn choose(&self, now: Duration) -> Arc<str> {
        let leader = self.leader.as_deref().and_then(|leader| self.find(leader));
        let in_turn = (0..self.nodes.len()).map(|step| (self.next + step) % self.nodes.len());
        let index = leader
            .into_iter()
            .chain(in_turn.clone())
            .find(|index| self.nodes[*index].suspect_until <= now)
            .or_else(|| in_turn.min_by_key(|index| self.nodes[*index].suspect_until))
            .expect("a client has at least one endpoint");
        Arc::clone(&self.nodes[index].address)
    }

    /// It could not be reached, or broke off.
    pub(crate) fn failed(&mut self, address: &str, now: Duration) {
        if let Some(index) = self.find(address) {
            let (min, max) = limits::SUSPECT;
            let node = &mut self.nodes[index];
            let quarantine = min.saturating_mul(1 << node.strikes.min(16)).min(max);
            node.strikes += 1;
            node.suspect_until = node.suspect_until.max(now + quarantine);
        }
        self.pass_over(address);
    }

    /// It belongs to another cluster.
    pub(crate) fn note_foreign(&mut self, address: &str, now: Duration) {
        if let Some(index) = self.find(address) {
            self.nodes[index].foreign = true;
            self.nodes[index].suspect_until = now + limits::FOREIGN;
        }
        self.pass_over(address);
    }

    /// Those that belong to another cluster, and whether there are no others.
    pub(crate) fn foreigners(&self) -> (Vec<Arc<str>>, bool) {
        let foreign: Vec<_> = self
            .nodes
            .iter()
            .filter(|node| node.foreign)
            .map(|node| Arc::clone(&node.address))
            .collect();
        let all = foreign.len() == self.nodes.len();
        (foreign, all)
    }

    /// It answers, but has no leader to offer: try the next.
    pub(crate) fn pass_over(&mut self, address: &str) {
        if self.leader.as_deref() == Some(address) {
            self.leader = None;
        }
        if let Some(index) = self.find(address) {
            self.next = (index + 1) % self.nodes.len();
        }
    }

    pub(crate) fn succeeded(&mut self, address: &str) {
        if let Some(index) = self.find(address) {
            self.nodes[index].strikes = 0;
            self.nodes[index].suspect_until = Duration::ZERO;
            self.nodes[index].foreign = false;
        }
    }

    /// A node says who leads. Not believed of one that has just failed: news
    /// of its fall travels slower than its connections break.
    pub(crate) fn note_leader(&mut self, address: &str, now: Duration) {
        if !self.follow_leader || address.is_empty() {
            return;
        }
        let index = self.add(address);
        if self.nodes[index].suspect_until <= now {
            self.leader = Some(Arc::clone(&self.nodes[index].address));
        }
    }

    /// A node says who the members are: those are known from now on. `leads`, and is
    /// in touch with a quorum: then there are no others beside those given. Anybody else
    /// may have been away, and name none of those that are there: who is not named
    /// stays, until it makes room.
    pub(crate) fn learn_members(&mut self, members: &[String], leads: bool) {
        if !self.follow_leader {
            return;
        }
        let next = self.nodes.get(self.next).map(|node| node.address.clone());
        let is_named = |node: &Node| members.iter().any(|member| **member == *node.address);
        if leads {
            self.nodes.retain(|node| node.given || is_named(node));
        }
        // Stable: it keeps the order of those named, and of the others.
        self.nodes.sort_by_key(is_named);
        for address in members {
            self.add(address);
        }
        self.next = next.and_then(|next| self.find(&next)).unwrap_or(0);
    }

    pub(crate) fn knows(&self, address: &str) -> bool {
        self.find(address).is_some()
    }

    pub(crate) fn addresses(&self) -> Vec<Arc<str>> {
        self.nodes
            .iter()
            .map(|node| Arc::clone(&node.address))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn directory(follow: bool) -> Directory {
        Directory::new(vec!["a:1".into(), "b:1".into(), "c:1".into()], follow)
    }

    #[test]
    fn a_known_leader_comes_first_until_it_fails() {
        let mut nodes = directory(true);
        assert_eq!(&*nodes.choose(MS), "a:1");
        nodes.note_leader("c:1", MS);
        assert_eq!(&*nodes.choose(MS), "c:1");
        nodes.failed("c:1", MS);
        assert_eq!(&*nodes.choose(MS), "a:1");
        // A follower that has not noticed yet still names the dead one.
        nodes.note_leader("c:1", 2 * MS);
        assert_eq!(&*nodes.choose(2 * MS), "a:1");
        nodes.note_leader("c:1", 300 * MS);
        assert_eq!(&*nodes.choose(300 * MS), "c:1");
    }

    #[test]
    fn nodes_without_a_leader_are_tried_in_turn() {
        let mut nodes = directory(true);
        nodes.pass_over("a:1");
        assert_eq!(&*nodes.choose(MS), "b:1");
        nodes.pass_over("b:1");
        nodes.failed("c:1", MS);
        assert_eq!(&*nodes.choose(MS), "a:1");
    }

    #[test]
    fn when_all_fail_the_one_first_out_of_quarantine_is_tried() {
        let mut nodes = directory(true);
        nodes.failed("b:1", MS);
        nodes.failed("c:1", 2 * MS);
        nodes.failed("a:1", 3 * MS);
        assert_eq!(&*nodes.choose(4 * MS), "b:1");
    }

    #[test]
    fn a_node_of_another_cluster_is_not_chosen_before_one_that_fails() {
        let mut nodes = directory(true);
        nodes.note_foreign("a:1", MS);
        assert_eq!(&*nodes.choose(2 * MS), "b:1");
        // Its own failures do not bring it back sooner.
        nodes.failed("a:1", 2 * MS);
        for dead in ["b:1", "c:1"] {
            for _ in 0..9 {
                nodes.failed(dead, 3 * MS);
            }
        }
        assert_ne!(&*nodes.choose(4 * MS), "a:1");
        nodes.note_leader("a:1", 4 * MS);
        assert_ne!(&*nodes.choose(4 * MS), "a:1");
        assert_eq!(nodes.foreigners(), (vec!["a:1".into()], false));
        nodes.succeeded("a:1");
        assert_eq!(nodes.foreigners(), (Vec::new(), false));
    }

    fn named<const N: usize>(members: [&str; N]) -> Vec<String> {
        members.map(str::to_owned).to_vec()
    }

    /// It was away while all members were replaced, and has not heard of it; and they
    /// have all been down for a while.
    #[test]
    fn a_node_that_knows_only_members_of_before_hides_nobody() {
        let mut nodes = Directory::new(vec!["a:1".into()], true);
        nodes.learn_members(&named(["a:1", "d:1", "e:1"]), true);
        for _ in 0..20 {
            for dead in ["d:1", "e:1"] {
                nodes.failed(dead, MS);
            }
        }
        nodes.learn_members(&named(["a:1", "b:1", "c:1"]), false);
        for dead in ["a:1", "b:1", "c:1"] {
            nodes.failed(dead, limits::SUSPECT.1 * 2);
        }
        assert_eq!(&*nodes.choose(limits::SUSPECT.1 * 2), "d:1");
        assert!(nodes.knows("e:1"));
    }

    #[test]
    fn no_more_nodes_are_learned_than_the_limit_and_those_named_last_are_known() {
        let given = (0..2 * limits::LEARNED_NODES).map(|n| format!("a{n}:1").into());
        let mut nodes = Directory::new(given.collect(), true);
        for round in 0..2 * limits::LEARNED_NODES {
            let members = [0, 1, 2].map(|n| format!("m{}:1", round + n));
            nodes.learn_members(&members, false);
            // A node that was away names the first ones again and again.
            nodes.learn_members(&named(["m0:1", "m1:1"]), false);
            assert!(nodes.addresses().len() <= 3 * limits::LEARNED_NODES);
            assert!(members.iter().all(|member| nodes.knows(member)));
            assert!(nodes.knows("a0:1") && nodes.knows("m0:1"));
        }
    }

    #[test]
    fn who_makes_room_does_not_take_the_turn_of_others() {
        let mut nodes = Directory::new(vec!["a:1".into()], true);
        for n in 0..limits::LEARNED_NODES {
            nodes.note_leader(&format!("m{n}:1"), MS);
        }
        nodes.pass_over("m4:1");
        let leader = format!("m{}:1", limits::LEARNED_NODES - 1);
        nodes.failed(&leader, MS);
        nodes.pass_over("m4:1");
        assert_eq!(&*nodes.choose(MS), "m5:1");
        nodes.note_leader("new:1", MS);
        assert!(!nodes.knows("m0:1"));
        nodes.note_foreign("new:1", MS);
        nodes.pass_over("m4:1");
        assert_eq!(&*nodes.choose(MS), "m5:1");
    }

    #[test]
    fn members_come_and_go_and_what_was_given_stays() {
        let mut nodes = directory(true);
        nodes.note_leader("d:1", MS);
        nodes.learn_members(&named(["c:1", "d:1", "e:1"]), true);
        let known: Vec<String> = nodes.addresses().iter().map(ToString::to_string).collect();
        assert_eq!(known, ["a:1", "b:1", "c:1", "d:1", "e:1"]);
        assert_eq!(&*nodes.choose(MS), "d:1", "the leader stays the leader");
        nodes.failed("d:1", MS);
        nodes.learn_members(&named(["c:1", "e:1"]), true);
        assert!(!nodes.knows("d:1"), "it was not given, nor is it a member");
        assert_eq!(&*nodes.choose(MS), "e:1", "it goes on with the next one");
        for dead in ["a:1", "b:1", "c:1"] {
            nodes.failed(dead, MS);
        }
        assert_eq!(&*nodes.choose(2 * MS), "e:1");
        let mut pinned = Directory::new(vec!["a:1".into()], false);
        pinned.learn_members(&named(["b:1"]), true);
        assert_eq!(pinned.addresses().len(), 1);
    }

    #[test]
    fn a_pinned_directory_ignores_hints() {
        let mut nodes = Directory::new(vec!["a:1".into()], false);
        nodes.note_leader("b:1", MS);
        nodes.failed("a:1", MS);
        assert_eq!(&*nodes.choose(MS), "a:1");
        assert_eq!(nodes.addresses().len(), 1);
    }
}
