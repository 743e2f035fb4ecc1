//! The life of a channel: request, acceptance, end from both sides, and the id free again.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use trunkline_micro::pair::Pair;

fn channels(c: &mut Criterion) {
    let mut group = c.benchmark_group("channel");
    group.sample_size(20);
    for count in [1, 100] {
        let mut pair = Pair::new();
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(BenchmarkId::new("open and close", count), |b| {
            b.iter(|| pair.open_and_close(count));
        });
    }
    group.finish();
}

criterion_group!(benches, channels);
criterion_main!(benches);
