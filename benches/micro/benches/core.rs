//! Both sides of a connection on one core, without sockets: frames, channels, recovery and
//! cryptography of sender and receiver, acknowledgements included.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use trunkline_micro::pair::Pair;
use trunkline_proto::config::ChannelKind;

fn core(c: &mut Criterion) {
    let mut group = c.benchmark_group("core");
    group.sample_size(20);
    for (name, channels, len, count) in [
        ("64 KiB messages", 1, 65_536, 64),
        ("64 B messages", 1, 64, 20_000),
        ("64 B messages on 200 channels", 200, 64, 20_000),
    ] {
        let mut pair = Pair::new();
        let keys = pair.open(ChannelKind::Messages, channels);
        let message = vec![7; len];
        pair.transfer(&keys, &message, 4 * count);
        for (unit, throughput) in [
            ("bytes", Throughput::Bytes(count * len as u64)),
            ("messages", Throughput::Elements(count)),
        ] {
            group.throughput(throughput);
            group.bench_function(BenchmarkId::new(name, unit), |b| {
                b.iter(|| pair.transfer(&keys, &message, count));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, core);
criterion_main!(benches);
