//! The wire contract of huntlog, generated from the files under `proto/`.
//!
//! Conversions between these messages and the domain live in the node's `wire`
//! module and in the client library.

/// The public contract, package `huntlog.v1`.
#[allow(missing_docs, unused_qualifications, clippy::all, clippy::pedantic)]
pub mod v1 {
    tonic::include_proto!("huntlog.v1");
}

/// What nodes say to each other, package `huntlog.peer.v1`.
#[allow(missing_docs, unused_qualifications, clippy::all, clippy::pedantic)]
pub mod peer {
    tonic::include_proto!("huntlog.peer.v1");
}

pub mod encoded;

/// The header that names a cluster by its id: the node's own in every answer, in a
/// request the one that is meant, which a node of another refuses.
pub const CLUSTER_ID_HEADER: &str = "huntlog-cluster-id";

/// The domain of the `ErrorInfo` in a node's status.
pub const ERROR_DOMAIN: &str = "huntlog";

/// The encoded `FileDescriptorSet` of both packages, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/huntlog.bin"));
