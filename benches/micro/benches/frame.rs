//! Frames: writing and parsing the headers of one full packet, with bodies of several sizes.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use trunkline_proto::limits::FRAME_OVERHEAD;
use trunkline_proto::wire::frame::{Frames, write_stream_header};

/// Payload of a packet of 1452 bytes.
const PAYLOAD: usize = 1_423;

/// Fills a payload with frames that have bodies of `body` bytes; gives their number.
fn emit(payload: &mut [u8], body: usize) -> usize {
    let (mut at, mut frames) = (0, 0);
    while at + FRAME_OVERHEAD + body <= payload.len() {
        write_stream_header(&mut payload[at..], 5, at as u64, body);
        at += FRAME_OVERHEAD + body;
        frames += 1;
    }
    payload[at..].fill(0);
    frames
}

fn parse(payload: &[u8]) -> usize {
    Frames::new(payload).map(|f| f.expect("a frame").body.len()).sum()
}

fn frames(c: &mut Criterion) {
    for body in [16, 64, PAYLOAD - FRAME_OVERHEAD] {
        let mut payload = vec![7; PAYLOAD];
        let count = emit(&mut payload, body) as u64;
        let mut group = c.benchmark_group("frame");
        group.throughput(Throughput::Elements(count));
        group.bench_function(BenchmarkId::new("parse", body), |b| {
            b.iter(|| parse(black_box(&payload)));
        });
        group.bench_function(BenchmarkId::new("emit", body), |b| {
            b.iter(|| emit(black_box(&mut payload), body));
        });
        group.finish();
    }
}

criterion_group!(benches, frames);
criterion_main!(benches);
