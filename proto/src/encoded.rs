//! `EventService` as a node serves it: the events of a page are bytes to it. They
//! are encoded once, out of the log, and passed on as they are by a node that has
//! asked another.

use prost::bytes::Bytes;

use crate::v1;

#[allow(missing_docs, unused_qualifications, clippy::all, clippy::pedantic)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/encoded/huntlog.v1.rs"));
}

pub use generated::{event_service_client, event_service_server};

/// What a [`v1::ReadResponse`] is on the wire, where a message within a message
/// and bytes look the same; and a [`v1::SubscribeResponse`], which is a
/// `ReadResponse` without its last two fields.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Page {
    /// As in the request.
    #[prost(uint32, tag = "1")]
    pub partition: u32,
    /// Each an encoded [`v1::CommittedEvent`], in the order of their offsets.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub events: Vec<Bytes>,
    /// Where to go on: every matching event below it has been delivered.
    #[prost(uint64, tag = "3")]
    pub next_offset: u64,
    /// The end of the committed events that a read sees, exclusive; 0 in a
    /// subscription.
    #[prost(uint64, tag = "4")]
    pub end_offset: u64,
    /// Of a stale read.
    #[prost(message, optional, tag = "5")]
    pub staleness: Option<v1::Staleness>,
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    fn events() -> Vec<v1::CommittedEvent> {
        let event = |offset| v1::CommittedEvent {
            offset,
            session: "s".repeat(200),
            ..v1::CommittedEvent::default()
        };
        // The last is empty altogether.
        (0..3).map(event).chain([Default::default()]).collect()
    }

    /// Every field is named, so that one more does not compile.
    #[test]
    fn a_page_is_a_read_response_on_the_wire() {
        let response = v1::ReadResponse {
            partition: 1,
            events: events(),
            next_offset: 2,
            end_offset: 3,
            staleness: Some(v1::Staleness::default()),
        };
        let wire = response.encode_to_vec();
        let page = Page::decode(&wire[..]).expect("it is one");
        assert_eq!(page.encode_to_vec(), wire);
        assert_eq!(page.events.len(), response.events.len());
        for (encoded, event) in page.events.iter().zip(&response.events) {
            assert_eq!(encoded[..], event.encode_to_vec());
        }
    }

    #[test]
    fn a_page_without_an_end_is_a_subscribe_response_on_the_wire() {
        let response = v1::SubscribeResponse {
            partition: 1,
            events: events(),
            next_offset: 2,
        };
        let page = Page {
            partition: 1,
            events: events()
                .iter()
                .map(|event| event.encode_to_vec().into())
                .collect(),
            next_offset: 2,
            ..Page::default()
        };
        assert_eq!(page.encode_to_vec(), response.encode_to_vec());
    }
}
