//! What a client's message costs until it is in the log's own form: decoded
//! from protobuf, checked, encoded. `cargo bench -p huntlog-node --bench wire`.
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use huntlog_node::wire::batch_command;
use huntlog_proto::v1;
use prost::Message;

fn request(events: usize) -> v1::AppendRequest {
    let event = v1::Event {
        hunt: "h0".to_owned(),
        player: "player-123".to_owned(),
        occurred_at: None,
        kind: Some(v1::event::Kind::Custom(v1::Custom {
            r#type: "position".to_owned(),
            payload: Bytes::from_static(&[7; 256]),
        })),
    };
    v1::AppendRequest {
        batch: Some(v1::Batch {
            session: "session-123".to_owned(),
            epoch: 12,
            sequence: 3_456,
            events: vec![event; events],
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn wire(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wire");
    for events in [1, 128] {
        let request = request(events);
        let message = Bytes::from(request.encode_to_vec());
        group.throughput(Throughput::Elements(events as u64));
        group.bench_function(BenchmarkId::new("decode", events), |bencher| {
            bencher.iter(|| v1::AppendRequest::decode(message.clone()).expect("sound"));
        });
        let batch = request.batch.expect("made above");
        group.bench_function(BenchmarkId::new("check and encode", events), |bencher| {
            bencher.iter_batched(
                || batch.clone(),
                |batch| batch_command(batch).expect("sound"),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, wire);
criterion_main!(benches);
