//! What a client makes of what nodes tell it, without any.

use huntlog_proto::v1::Member;
use tonic_types::{ErrorDetails, StatusExt as _};

use super::*;

#[test]
fn endpoints_are_host_and_port() {
    for good in ["127.0.0.1:7650", "http://node-1:7650", "[::1]:7650"] {
        assert!(
            Cluster::new([good], ClientOptions::default()).is_ok(),
            "{good}"
        );
    }
    for bad in ["", "node", "node:port", "a b:1", "https://x:1/y", ":7650"] {
        let error = Cluster::new([bad], ClientOptions::default()).expect_err(bad);
        assert!(
            matches!(error, ConfigError::InvalidEndpoint { .. }),
            "{bad}"
        );
    }
    let none = Cluster::new(Vec::<String>::new(), ClientOptions::default());
    assert_eq!(none.expect_err("none"), ConfigError::NoEndpoint);
}

#[test]
fn options_outside_what_works_are_named() {
    let options = ClientOptions {
        timeout: Duration::from_hours(1),
        ..ClientOptions::default()
    };
    let error = Cluster::new(["a:1"], options).expect_err("too long");
    assert!(
        error.to_string().contains("timeout (in ms) is 3600000"),
        "{error}"
    );
}

#[tokio::test]
async fn connections_to_nodes_that_are_members_no_more_are_closed() {
    let cluster = Cluster::new(["a:1"], ClientOptions::default()).expect("one endpoint");
    let status = |member: &str| GetStatusResponse {
        partitions: vec![PartitionStatus {
            ready: true,
            role: Role::Leader.into(),
            members: vec![Member {
                client_address: member.to_owned(),
                ..Member::default()
            }],
            ..PartitionStatus::default()
        }],
        ..GetStatusResponse::default()
    };
    let connect = |address: &str| {
        cluster.attempt(&address.into(), Duration::from_secs(1));
        let channels = cluster.channels.lock().expect("nothing has panicked");
        let mut addresses: Vec<_> = channels.keys().map(|key| key.to_string()).collect();
        addresses.sort_unstable();
        addresses
    };
    connect("a:1");
    cluster
        .learn_members("a:1", status("b:1"))
        .expect("a leader");
    assert_eq!(connect("b:1"), ["a:1", "b:1"]);
    cluster
        .learn_members("b:1", status("c:1"))
        .expect("a leader");
    // What the client was made with stays.
    assert_eq!(connect("c:1"), ["a:1", "c:1"]);
}

#[tokio::test]
async fn what_a_node_said_is_told_though_the_last_attempt_was_cut_off() {
    let cluster = Cluster::new(["a:1"], ClientOptions::default()).expect("one endpoint");
    cluster.id.set("known".to_owned()).expect("not yet set");
    for repeat in [Repeat::Idempotent, Repeat::OnlyIfNotApplied] {
        let attempts = AtomicU64::new(0);
        let error = cluster
            .call(Duration::from_millis(200), repeat, async |_| {
                if attempts.fetch_add(1, Ordering::Relaxed) > 0 {
                    std::future::pending::<()>().await;
                }
                let not_applied = [("disposition".to_owned(), "NOT_APPLIED".to_owned())];
                let details = ErrorDetails::with_error_info("NO_LEADER", "", not_applied);
                let refused = Status::with_error_details(Code::Unavailable, "none yet", details);
                Err::<Response<()>, _>(refused)
            })
            .await
            .expect_err("there is no time for more");
        for words in ["did not answer in time", "NO_LEADER: none yet"] {
            assert!(error.to_string().contains(words), "{error}");
        }
        let (CallError::Unavailable { last, .. } | CallError::Refused(last)) = error else {
            panic!("{error}");
        };
        // The last attempt may have been applied, whatever became of the first.
        assert_eq!(last.disposition, Disposition::Unknown);
        assert_eq!(attempts.into_inner(), 2);
    }
}

#[test]
fn most_voters_have_answered_whoever_else_is_known() {
    let view = |term: u64, voters: &[&str]| PartitionStatus {
        term,
        members: voters
            .iter()
            .map(|address| Member {
                client_address: (*address).to_owned(),
                voter: true,
                ..Member::default()
            })
            .collect(),
        ..PartitionStatus::default()
    };
    let (old, new) = (["a:1", "b:1", "c:1"], ["c:1", "d:1", "e:1"]);
    let mut views = Vec::new();
    assert!(!most_voters_answered(&views));
    for departed in ["a:1", "b:1"] {
        views.push((departed.into(), view(3, &old)));
    }
    assert!(most_voters_answered(&views), "as far as those two know");
    views.push(("d:1".into(), view(4, &new)));
    assert!(!most_voters_answered(&views), "one of three");
    views.push(("e:1".into(), view(3, &old)));
    assert!(most_voters_answered(&views));
}
