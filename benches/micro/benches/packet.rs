//! Packets: sealing, and opening (which includes a copy, because opening is in place).

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use trunkline_micro::keys::data_keys;
use trunkline_proto::time::Instant;

fn packets(c: &mut Criterion) {
    let mut group = c.benchmark_group("packet");
    for len in [64, 256, 1_200, 1_452, 9_000] {
        group.throughput(Throughput::Bytes(len as u64));
        let (mut client, _) = data_keys();
        let (mut packet, mut pn) = (vec![0x40; len], 0);
        group.bench_function(BenchmarkId::new("seal", len), |b| {
            b.iter(|| {
                client.seal(pn, &mut packet).expect("a sealed packet");
                // Keys that have sealed too much are only updated when something was acknowledged.
                client.on_acked(pn);
                pn += 1;
            });
        });
        let (mut client, mut host) = data_keys();
        let mut sealed = vec![0x40; len];
        client.seal(1, &mut sealed).expect("a sealed packet");
        group.bench_function(BenchmarkId::new("open", len), |b| {
            b.iter_batched_ref(
                || sealed.clone(),
                |packet| {
                    host.open(Instant::ZERO, 1, false, packet).expect("authentic").payload.len()
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, packets);
criterion_main!(benches);
