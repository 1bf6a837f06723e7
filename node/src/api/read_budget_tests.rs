//! I11: what is prepared for readers that take nothing is bounded, and costs the
//! others nothing.

use futures::{FutureExt as _, TryStreamExt as _};
use prost::Message as _;
use tokio::time::Instant;
use tonic::metadata::MetadataMap;

use super::*;
use crate::api::call::Call;
use crate::api::reading::{Begun, start_read};

const EVENTS: usize = 8;

impl Cluster {
    /// A read from the beginning, as the transport takes it.
    async fn begin_read(&self) -> DeliveryStream {
        let call = Call::new(&MetadataMap::new());
        match start_read(&self.context, from_offset(0), call).await {
            Ok(Begun::Here(stream)) => stream,
            Ok(Begun::Elsewhere { .. }) => panic!("it is all here"),
            Err(error) => panic!("it begins, not {error}"),
        }
    }

    async fn begin_reads(&self, count: usize) -> Vec<DeliveryStream> {
        let mut streams = Vec::new();
        for _ in 0..count {
            streams.push(self.begin_read().await);
        }
        streams
    }

    /// Reads everything, and how long that takes.
    async fn read_all(&self) -> Duration {
        let started = Instant::now();
        let messages: Vec<_> = self
            .begin_read()
            .await
            .try_collect()
            .await
            .expect("it goes on to the end");
        let events = messages.iter().map(|page| {
            let response = v1::ReadResponse::decode(&page.encode_to_vec()[..]);
            response.expect("it is one").events.len()
        });
        assert_eq!(events.sum::<usize>(), 1 + EVENTS);
        started.elapsed()
    }
}

#[tokio::test]
async fn readers_that_take_nothing_hold_a_bounded_part_and_keep_nobody_waiting() {
    let cluster = Cluster::start().await;
    let epoch = cluster.with_hunt().await;
    for sequence in 0..EVENTS as u64 {
        let event = custom("h", "", limits::EVENT_BYTES_MAX - 1024);
        cluster
            .append(batch(epoch, 2 + sequence, vec![event]))
            .await
            .expect("applied");
    }
    // Time stands still while there is anything to do, and then leaps.
    tokio::time::pause();

    // So many that they would prepare more than the budget, three messages each.
    let mut stalled = cluster.begin_reads(48).await;
    let waited = cluster.read_all().await;
    assert!(waited < Duration::from_secs(1), "{waited:?}");

    // So many that their first messages come to more than the budget.
    stalled.extend(cluster.begin_reads(102).await);
    let waited = cluster.read_all().await;
    assert!(waited < 3 * limits::READER_STALL_MAX, "{waited:?}");

    tokio::time::sleep(limits::READER_STALL_MAX + Duration::from_secs(1)).await;
    for mut stream in stalled {
        let Some(Err(status)) = stream.next().await else {
            panic!("what was prepared is let go, and the client is told");
        };
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(info(&status).metadata["next_offset"], "0");
    }

    let streams = cluster.begin_reads(150).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let prepared: usize = streams
        .into_iter()
        .map(|mut stream| {
            let mut bytes = 0;
            // Nothing runs in between that could prepare more.
            while let Some(Some(Ok(message))) = stream.next().now_or_never() {
                bytes += prost::Message::encoded_len(&message);
            }
            bytes
        })
        .sum();
    assert!(prepared <= limits::READ_BUFFERS_BYTES_MAX, "{prepared}");
    assert!(prepared > limits::READ_BUFFERS_BYTES_MAX / 2, "{prepared}");
}
