//! Batches encoded once, however often they are sent.

use bytes::{BufMut, Bytes, BytesMut};
use huntlog_proto::v1;
use prost::Message;

/// `huntlog.v1.AppendRequest` with its batch in encoded form: on the wire a
/// nested message and bytes look the same (protobuf encoding, "Length-Delimited
/// Records").
#[derive(Clone, PartialEq, Message)]
pub(crate) struct EncodedAppendRequest {
    #[prost(uint32, tag = "1")]
    pub(crate) partition: u32,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) batch: Bytes,
}

/// The part of a `huntlog.v1.Batch` that does not depend on its number.
pub(crate) fn encode_body(
    events: Vec<v1::Event>,
    expected_revisions: Vec<v1::ExpectedRevision>,
) -> Bytes {
    v1::Batch {
        events,
        expected_revisions,
        ..Default::default()
    }
    .encode_to_vec()
    .into()
}

/// The whole request. Fields of a message may come in any order and in parts,
/// so that the numbers simply precede the body.
pub(crate) fn encode_request(
    partition: u32,
    session: &str,
    epoch: u64,
    sequence: u64,
    body: &Bytes,
) -> EncodedAppendRequest {
    let numbers = v1::Batch {
        session: session.to_owned(),
        epoch,
        sequence,
        ..Default::default()
    };
    let mut batch = BytesMut::with_capacity(numbers.encoded_len() + body.len());
    numbers
        .encode(&mut batch)
        .expect("the buffer grows as needed");
    batch.put_slice(body);
    EncodedAppendRequest {
        partition,
        batch: batch.freeze(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event;

    #[test]
    fn the_wire_sees_an_ordinary_append_request() {
        let events = vec![
            event::clue_attempted("hunt", "team", "clue", "ANSWER"),
            event::custom("hunt", "", "chat", &b"\x00\xff"[..]),
        ];
        let expected = vec![event::expect_no_event("hunt")];
        let mut body = BytesMut::new();
        for event in &events {
            body.put(encode_body(vec![event.clone()], vec![]));
        }
        body.put(encode_body(vec![], expected.clone()));
        let encoded = encode_request(3, "session", 9, 12, &body.freeze()).encode_to_vec();
        let decoded = v1::AppendRequest::decode(&encoded[..]).expect("valid");
        assert_eq!(
            decoded,
            v1::AppendRequest {
                partition: 3,
                batch: Some(v1::Batch {
                    session: "session".into(),
                    epoch: 9,
                    sequence: 12,
                    events,
                    expected_revisions: expected,
                }),
            }
        );
    }
}
