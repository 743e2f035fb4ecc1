//! The timer wheel: moving a deadline among many, and expiring them.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use trunkline_proto::time::{Duration, Instant};
use trunkline_proto::wheel::TimerWheel;

fn wheel(c: &mut Criterion) {
    let mut group = c.benchmark_group("wheel");
    for slots in [100u32, 10_000, 100_000] {
        let mut now = Instant::from_nanos(1_000_000_000);
        let mut wheel = TimerWheel::new(now);
        for slot in 0..slots {
            wheel.set(slot, Some(now + Duration::from_micros(100 + u64::from(slot))));
        }
        let mut slot = 0;
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("set", slots), |b| {
            b.iter(|| {
                slot = (slot + 7_919) % slots;
                wheel.set(slot, Some(now + Duration::from_micros(100 + u64::from(slot))));
            });
        });
        let mut due = Vec::with_capacity(slots as usize);
        group.throughput(Throughput::Elements(u64::from(slots)));
        group.bench_function(BenchmarkId::new("expire and set all", slots), |b| {
            b.iter(|| {
                now += Duration::from_micros(200 + u64::from(slots));
                due.clear();
                wheel.expire(now, &mut due);
                for slot in &due {
                    let at = now + Duration::from_micros(100 + u64::from(*slot));
                    wheel.set(*slot, Some(at));
                }
                due.len()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, wheel);
criterion_main!(benches);
