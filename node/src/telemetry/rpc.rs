//! Requests by method and outcome.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::{Registry, Unit},
};

use super::{labels::Side, measures::Seconds};

/// A method of the contract. Paths come from the network, so that only known
/// ones may become labels; all others count as one.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub struct Method(&'static str);

/// The methods of our own services, and of health and reflection; sorted.
const METHODS: [&str; 35] = [
    "grpc.health.v1.Health/Check",
    "grpc.health.v1.Health/List",
    "grpc.health.v1.Health/Watch",
    "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    "huntlog.peer.v1.PeerService/Adopt",
    "huntlog.peer.v1.PeerService/AppendEntries",
    "huntlog.peer.v1.PeerService/AppendStream",
    "huntlog.peer.v1.PeerService/CompareDigest",
    "huntlog.peer.v1.PeerService/Hello",
    "huntlog.peer.v1.PeerService/InstallSnapshot",
    "huntlog.peer.v1.PeerService/PreVote",
    "huntlog.peer.v1.PeerService/ReadIndex",
    "huntlog.peer.v1.PeerService/TransferLeader",
    "huntlog.peer.v1.PeerService/Vote",
    "huntlog.v1.AdminService/AddMember",
    "huntlog.v1.AdminService/DrainNode",
    "huntlog.v1.AdminService/FinalizeUpgrade",
    "huntlog.v1.AdminService/GetStatus",
    "huntlog.v1.AdminService/InitCluster",
    "huntlog.v1.AdminService/ListMembers",
    "huntlog.v1.AdminService/ListSessions",
    "huntlog.v1.AdminService/PromoteMember",
    "huntlog.v1.AdminService/RemoveMember",
    "huntlog.v1.AdminService/TakeSnapshot",
    "huntlog.v1.AdminService/TransferLeader",
    "huntlog.v1.EventService/Append",
    "huntlog.v1.EventService/AppendStream",
    "huntlog.v1.EventService/OpenSession",
    "huntlog.v1.EventService/Read",
    "huntlog.v1.EventService/Subscribe",
    "huntlog.v1.HuntService/GetHunt",
    "huntlog.v1.HuntService/GetPlayer",
    "huntlog.v1.HuntService/GetScoreboard",
    "huntlog.v1.HuntService/ListHunts",
];

impl Method {
    /// The method of a request's path, such as `/huntlog.v1.EventService/Append`.
    pub fn from_path(path: &str) -> Self {
        let path = path.strip_prefix('/').unwrap_or(path);
        let known = METHODS.binary_search(&path).ok();
        Self(known.map_or("other", |index| METHODS[index]))
    }

    /// As the label spells it: `huntlog.v1.EventService/Append`, or `other`.
    pub fn name(self) -> &'static str {
        self.0
    }
}

/// gRPC's status codes, each at its number.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabels {
    side: Side,
    method: &'static str,
    code: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct MethodLabels {
    side: Side,
    method: &'static str,
}

/// Requests by method and outcome.
#[derive(Clone, Debug)]
pub struct RpcMetrics {
    outcomes: Family<OutcomeLabels, Counter>,
    seconds: Family<MethodLabels, Seconds>,
}

impl RpcMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            outcomes: Family::default(),
            seconds: Family::default(),
        };
        registry.register(
            "rpc",
            "Requests and streams that ended, by method and gRPC status code",
            metrics.outcomes.clone(),
        );
        registry.register_with_unit(
            "rpc",
            "From a request's arrival to the end of its answer; for a stream, its life",
            Unit::Seconds,
            metrics.seconds.clone(),
        );
        metrics
    }

    /// Adds a request that ended with the gRPC status `code` (a `tonic::Code`
    /// as its number).
    pub fn observe(&self, side: Side, method: Method, code: i32, elapsed: Duration) {
        let code = usize::try_from(code).ok().and_then(|code| CODES.get(code));
        let labels = OutcomeLabels {
            side,
            method: method.0,
            code: code.unwrap_or(&"UNKNOWN"),
        };
        self.outcomes.get_or_create(&labels).inc();
        let labels = MethodLabels {
            side,
            method: method.0,
        };
        self.seconds.get_or_create(&labels).observe(elapsed);
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use super::*;

    #[test]
    fn every_method_of_the_contract_is_known() {
        assert!(METHODS.is_sorted());
        let set =
            FileDescriptorSet::decode(huntlog_proto::FILE_DESCRIPTOR_SET).expect("descriptors");
        let mut methods = Vec::new();
        for file in &set.file {
            for service in &file.service {
                for method in &service.method {
                    methods.push(format!(
                        "{}.{}/{}",
                        file.package(),
                        service.name(),
                        method.name()
                    ));
                }
            }
        }
        methods.sort_unstable();
        let ours: Vec<_> = METHODS
            .into_iter()
            .filter(|m| m.starts_with("huntlog."))
            .collect();
        assert_eq!(ours, methods);
    }

    #[test]
    fn what_nobody_knows_is_one_label() {
        let name = |path| Method::from_path(path).name();
        assert_eq!(
            name("/huntlog.v1.EventService/Read"),
            "huntlog.v1.EventService/Read"
        );
        assert_eq!(name("/huntlog.v1.EventService/Wread"), "other");
        assert_eq!(name(""), "other");
    }
}
