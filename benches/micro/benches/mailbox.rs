//! The mailbox of a shard: commands posted and carried out, by one thread and from another.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use trunkline::{Context, DriverChoice, Engine, EngineConfig, Handler, LocalShard};

/// Commands of one turn.
const BATCH: u64 = 256;

#[derive(Default)]
struct Count(Arc<AtomicU64>);

impl Handler for Count {
    type Command = u64;

    fn on_command(&mut self, _: &mut Context<'_>, command: u64) {
        self.0.store(self.0.load(Ordering::Relaxed) + command, Ordering::Relaxed);
    }
}

fn config() -> EngineConfig {
    EngineConfig { driver: DriverChoice::Mio, ..EngineConfig::default() }
}

fn mailbox(c: &mut Criterion) {
    let mut group = c.benchmark_group("mailbox");
    group.throughput(Throughput::Elements(BATCH));
    let count = Arc::<AtomicU64>::default();
    let mut shard = LocalShard::new(config(), Count(count.clone())).expect("a shard");
    let handle = shard.handle();
    group.bench_function(BenchmarkId::from_parameter("posted and carried out"), |b| {
        b.iter(|| {
            for _ in 0..BATCH {
                handle.post(1).expect("room");
            }
            shard.poll(Some(Duration::ZERO)).expect("a turn");
        });
    });

    // The shard has a thread of its own, which sleeps between the rounds: waking it is included.
    let count = Arc::<AtomicU64>::default();
    let handler = count.clone();
    let engine =
        Engine::start(EngineConfig { shards: 1, ..config() }, move |_| Count(handler.clone()))
            .expect("an engine");
    group.bench_function(BenchmarkId::from_parameter("to another thread"), |b| {
        b.iter_custom(|rounds| {
            let start = Instant::now();
            for _ in 0..rounds {
                let until = count.load(Ordering::Relaxed) + BATCH;
                for _ in 0..BATCH {
                    engine.post(0, 1).expect("room");
                }
                while count.load(Ordering::Relaxed) < until {
                    std::hint::spin_loop();
                }
            }
            start.elapsed()
        });
    });
    group.finish();
}

criterion_group!(benches, mailbox);
criterion_main!(benches);
