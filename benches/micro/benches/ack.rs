//! Acknowledgements: sending a window of packets and having it acknowledged, in order and with gaps.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::ops::RangeInclusive;
use trunkline_proto::config::ConnectionConfig;
use trunkline_proto::ids::ChannelKey;
use trunkline_proto::recovery::{Asks, Ecn, PacketFlags, Recovery};
use trunkline_proto::time::{Duration, Instant};
use trunkline_proto::wire::ack::write_ack;
use trunkline_proto::wire::codec::Writer;
use trunkline_proto::wire::frame::Frames;
use trunkline_proto::wire::record::FrameRecord;
use trunkline_proto::wire::transport::TransportFrame;

/// Packets that are sent before an acknowledgement comes.
const WINDOW: u64 = 64;

/// Sends a window, then acknowledges all of it in one frame of these ranges. Gives the records that
/// were settled.
fn window(recovery: &mut Recovery, now: Instant, gaps: bool) -> u64 {
    let mut sent = Vec::with_capacity(WINDOW as usize);
    for _ in 0..WINDOW {
        let pn = recovery.begin_packet();
        let channel = ChannelKey { slot: 1, life: 1 };
        recovery.record(FrameRecord::Stream { channel, offset: pn, len: 1_400, eof: false });
        let flags = PacketFlags { asks: Asks::Soon, probe_mtu: false, ecn: Ecn::NotEct };
        recovery.finish_packet(now, pn, 1_452, flags);
        sent.push(pn);
    }
    let later = now + Duration::from_millis(1);
    let mut settled = 0;
    if gaps {
        // Every other packet first: 32 ranges; then the others.
        let odd: Vec<_> = sent.iter().rev().step_by(2).map(|pn| *pn..=*pn).collect();
        settled += acknowledge(recovery, later, &odd);
    }
    settled + acknowledge(recovery, later, &runs(&sent))
}

/// The numbers as ranges, newest first: a number may have been left out on purpose.
fn runs(sent: &[u64]) -> Vec<RangeInclusive<u64>> {
    let mut runs: Vec<RangeInclusive<u64>> = Vec::new();
    for pn in sent.iter().rev() {
        match runs.last_mut() {
            Some(run) if *run.start() == pn + 1 => *run = *pn..=*run.end(),
            _ => runs.push(*pn..=*pn),
        }
    }
    runs
}

fn acknowledge(recovery: &mut Recovery, now: Instant, ranges: &[RangeInclusive<u64>]) -> u64 {
    let mut bytes = [0; 1_200];
    let mut w = Writer::new(&mut bytes);
    write_ack(&mut w, Duration::ZERO, ranges.iter().cloned(), None).expect("room");
    let len = w.written();
    let frame = Frames::new(&bytes[..len]).next().expect("a frame").expect("a good one");
    let Ok(TransportFrame::Ack(ack)) = TransportFrame::parse(frame.body) else {
        panic!("not an ACK frame")
    };
    let mut settled = 0;
    recovery.on_ack(now, &ack, |_, _| settled += 1).expect("honest");
    settled
}

fn acks(c: &mut Criterion) {
    let mut group = c.benchmark_group("ack");
    group.throughput(Throughput::Elements(WINDOW));
    for (name, gaps) in [("in order", false), ("with gaps", true)] {
        let config = ConnectionConfig::default();
        let mut now = Instant::from_nanos(1_000_000_000);
        let mut recovery = Recovery::new(now, &config, config.initial_packet, 1);
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter(|| {
                now += Duration::from_millis(2);
                window(&mut recovery, now, gaps)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, acks);
criterion_main!(benches);
