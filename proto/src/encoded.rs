//! `EventService` as a node serves it: the events of a page are bytes to it. They
//! are encoded once, out of the log, and passed on as they are by a node that has
//! asked another.

use prost::bytes::{Buf, BufMut, Bytes};
use prost::encoding::{self, DecodeContext, WireType};
use prost::{DecodeError, Message};

use crate::v1;

#[allow(missing_docs, unused_qualifications, clippy::all, clippy::pedantic)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/encoded/huntlog.v1.rs"));
}

pub use generated::{event_service_client, event_service_server};

/// What a [`v1::ReadResponse`] is on the wire, where a message within a message
/// and bytes look the same; and a [`v1::SubscribeResponse`], which is a
/// `ReadResponse` without its last two fields. The events come last, which is as
/// good as any order to who decodes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Page {
    /// What it says beside its events.
    pub head: PageHead,
    /// Its events, in the order of their offsets.
    pub events: Events,
}

/// The fields of a page that are not its events.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PageHead {
    /// As in the request.
    #[prost(uint32, tag = "1")]
    pub partition: u32,
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

/// Encoded [`v1::CommittedEvent`]s, each as a page has it: a field with its length.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Events(Vec<u8>);

/// The number of the field `events`.
const EVENTS: u32 = 2;

impl Events {
    /// Adds the one whose fields `fill` appends.
    pub fn add(&mut self, fill: impl FnOnce(&mut Vec<u8>)) {
        put_message(EVENTS, &mut self.0, fill);
    }

    /// What they take in a message.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes them out, in an allocation without room to spare.
    #[must_use]
    pub fn take(&mut self) -> Self {
        self.0.shrink_to_fit();
        std::mem::take(self)
    }
}

/// Appends a message as the field `tag` of another; `fill` appends its fields. They
/// make room for their length, which is known only then.
pub fn put_message(tag: u32, out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    encoding::encode_key(tag, WireType::LengthDelimited, out);
    let start = out.len();
    fill(out);
    let length = (out.len() - start) as u64;
    encoding::encode_varint(length, out);
    out[start..].rotate_right(encoding::encoded_len_varint(length));
}

impl Message for Page {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        self.head.encode_raw(buf);
        buf.put_slice(&self.events.0);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        if tag != EVENTS {
            return self.head.merge_field(tag, wire_type, buf, ctx);
        }
        let mut event = Bytes::new();
        encoding::bytes::merge(wire_type, &mut event, buf, ctx).map_err(|mut error| {
            error.push("Page", "events");
            error
        })?;
        self.events.add(|out| out.extend_from_slice(&event));
        Ok(())
    }

    fn encoded_len(&self) -> usize {
        self.head.encoded_len() + self.events.size_bytes()
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
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
        let page = Page::decode(&response.encode_to_vec()[..]).expect("it is one");
        let wire = page.encode_to_vec();
        assert_eq!(wire.len(), page.encoded_len());
        assert_eq!(v1::ReadResponse::decode(&wire[..]), Ok(response));
        assert_eq!(Page::decode(&wire[..]), Ok(page));
    }

    #[test]
    fn a_page_without_an_end_is_a_subscribe_response_on_the_wire() {
        let response = v1::SubscribeResponse {
            partition: 1,
            events: events(),
            next_offset: 2,
        };
        let mut page = Page::default();
        (page.head.partition, page.head.next_offset) = (1, 2);
        for event in events() {
            page.events.add(|out| event.encode_raw(out));
        }
        let wire = page.encode_to_vec();
        assert_eq!(v1::SubscribeResponse::decode(&wire[..]), Ok(response));
    }

    /// One, two and three bytes of length.
    #[test]
    fn a_message_of_any_length_is_within_another() {
        for length in [0, 1, 127, 128, 16_383, 16_384] {
            let event = v1::CommittedEvent {
                session: "s".repeat(length),
                ..v1::CommittedEvent::default()
            };
            let mut taken = Events::default();
            taken.add(|out| event.encode_raw(out));
            let page = Page {
                events: taken.take(),
                ..Page::default()
            };
            assert!(taken.is_empty());
            let wire = page.encode_to_vec();
            let read = v1::ReadResponse::decode(&wire[..]).expect("it is one");
            assert_eq!(read.events, [event]);
        }
    }
}
