//! Recovery driven by hand, packet by packet.

use super::sim::{KEY, Random, at_ms, ms};
use crate::config::ConnectionConfig;
use crate::error::PeerMisbehaved;
use crate::limits::MAX_TRACKED_PACKETS;
use crate::recovery::{
    AckSummary, Asks, Budget, Ecn, EcnState, Fate, PacketFlags, Recovery, TimeoutOutcome,
};
use crate::time::{Duration, Instant};
use crate::wire::ack::{EcnCounts, write_ack};
use crate::wire::codec::Writer;
use crate::wire::frame::Frames;
use crate::wire::record::FrameRecord;
use crate::wire::transport::TransportFrame;
use std::collections::{BTreeMap, BTreeSet};

const SIZE: usize = 1200;

/// A [`Recovery`] and what it said.
struct Bench {
    recovery: Recovery,
    /// Fates in order, with the number of the packet that the record was made in.
    fates: Vec<(Fate, u64)>,
    skipped: Vec<u64>,
}

impl Bench {
    fn new() -> Self {
        Self::with(&ConnectionConfig { max_packet: SIZE, ..ConnectionConfig::default() })
    }

    fn with(cfg: &ConnectionConfig) -> Self {
        let mut recovery = Recovery::new(at_ms(0), cfg, cfg.initial_packet, 1);
        recovery.set_peer(ms(25), cfg.max_packet);
        Self { recovery, fates: Vec::new(), skipped: Vec::new() }
    }

    /// One whose round trip is known to be 100 ms.
    fn measured() -> Self {
        let mut bench = Self::new();
        for _ in 0..100 {
            bench.recovery.rtt.update(ms(100), Duration::ZERO);
        }
        bench
    }

    fn send_packet(&mut self, now: Instant, size: usize, eliciting: bool, ecn: Ecn) -> u64 {
        let expected = self.recovery.next_pn();
        let end = self.recovery.sent.end();
        let pn = self.recovery.begin_packet();
        assert_eq!(pn, expected);
        self.skipped.extend(end..pn);
        self.recovery.record(record(pn));
        let asks = if eliciting { Asks::Soon } else { Asks::Nothing };
        let flags = PacketFlags { asks, probe_mtu: false, ecn };
        self.recovery.finish_packet(now, pn, size, flags);
        pn
    }

    fn send(&mut self, now: Instant) -> u64 {
        self.send_packet(now, SIZE, true, Ecn::NotEct)
    }

    fn send_many(&mut self, now: Instant, count: usize) -> Vec<u64> {
        (0..count).map(|_| self.send(now)).collect()
    }

    fn ack_with(
        &mut self,
        now: Instant,
        delay: Duration,
        pns: &[u64],
        ecn: Option<EcnCounts>,
    ) -> Result<AckSummary, PeerMisbehaved> {
        let mut buf = [0; 1200];
        let mut w = Writer::new(&mut buf);
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for pn in pns.iter().copied().collect::<BTreeSet<_>>() {
            match ranges.last_mut() {
                Some((_, hi)) if *hi + 1 == pn => *hi = pn,
                _ => ranges.push((pn, pn)),
            }
        }
        write_ack(&mut w, delay, ranges.iter().rev().map(|&(lo, hi)| lo..=hi), ecn).unwrap();
        let len = w.written();
        let frame = Frames::new(&buf[..len]).next().unwrap().unwrap();
        let TransportFrame::Ack(ack) = TransportFrame::parse(frame.body).unwrap() else { panic!() };
        let fates = &mut self.fates;
        self.recovery.on_ack(now, &ack, |fate, record| fates.push((fate, number(record))))
    }

    fn ack(&mut self, now: Instant, pns: &[u64]) -> AckSummary {
        self.ack_with(now, Duration::ZERO, pns, None).unwrap()
    }

    fn timeout(&mut self, now: Instant) -> TimeoutOutcome {
        let fates = &mut self.fates;
        self.recovery.on_timeout(now, |fate, record| fates.push((fate, number(record))))
    }

    fn told(&mut self, fate: Fate) -> Vec<u64> {
        let told = self.fates.iter().filter(|(f, _)| *f == fate).map(|(_, pn)| *pn).collect();
        self.fates.retain(|(f, _)| *f != fate);
        told
    }
}

fn record(pn: u64) -> FrameRecord {
    FrameRecord::Stream { channel: KEY, offset: pn, len: 1, eof: false }
}

fn number(record: &FrameRecord) -> u64 {
    let FrameRecord::Stream { offset, .. } = record else { panic!("{record:?}") };
    *offset
}

#[test]
fn in_order_acknowledgements_settle_everything() {
    let mut b = Bench::new();
    let pns = b.send_many(at_ms(0), 10);
    assert_eq!(b.recovery.bytes_in_flight(), 12_000);
    let summary = b.ack(at_ms(50), &pns[..4]);
    assert_eq!((summary.newly_acked_packets, summary.newly_acked_bytes), (4, 4_800));
    assert_eq!((summary.largest_newly_acked, summary.lost_packets), (Some(pns[3]), 0));
    assert_eq!(b.told(Fate::Acked), pns[..4]);
    assert_eq!(b.recovery.rtt().smoothed(), ms(50));
    // The same again changes nothing.
    let again = b.ack(at_ms(60), &pns[..4]);
    assert_eq!(again, AckSummary { largest_acked: Some(pns[3]), ..AckSummary::default() });
    b.ack(at_ms(60), &pns);
    assert_eq!(b.told(Fate::Acked), pns[4..]);
    assert!(b.recovery.is_idle() && b.recovery.timeout().is_none());
    assert_eq!(b.recovery.bytes_in_flight(), 0);
}

#[test]
fn three_packets_behind_is_lost_and_time_takes_the_rest() {
    let mut b = Bench::measured();
    let pns = b.send_many(at_ms(0), 6);
    let summary = b.ack(at_ms(100), &pns[4..5]);
    assert_eq!(b.told(Fate::Lost), pns[..2]);
    assert_eq!(summary.lost_packets, 2);
    // 9/8 of a round trip after they were sent the other two are lost as well.
    let at = b.recovery.timeout().unwrap();
    assert_eq!(at.since(at_ms(112)).as_millis(), 0);
    assert_eq!(b.timeout(at - Duration::from_nanos(1)), TimeoutOutcome::default());
    assert_eq!(b.timeout(at).lost_packets, 2);
    assert_eq!(b.told(Fate::Lost), pns[2..4]);
    assert_eq!(b.recovery.bytes_in_flight(), SIZE as u64);
    assert_eq!(b.recovery.stats().loss_events, 1);
}

#[test]
fn probe_timeouts_back_off_and_name_the_oldest_contents() {
    let mut b = Bench::measured();
    let pns = b.send_many(at_ms(0), 5);
    let pto = b.recovery.pto();
    assert!(pto > ms(125) && pto < ms(130));
    let mut last = at_ms(0);
    for round in 0..4 {
        let at = b.recovery.timeout().unwrap();
        assert_eq!(at.since(last), pto.mul(1 << round));
        assert!(b.timeout(at).pto);
        assert_eq!(b.recovery.probes_owed(), 2);
        assert_eq!(b.told(Fate::Probe), pns[..2]);
        b.send(at);
        b.send(at);
        assert_eq!(b.recovery.probes_owed(), 0);
        last = at;
    }
    assert_eq!((b.recovery.pto_count(), b.told(Fate::Lost).len()), (4, 0));
    let newest = b.recovery.next_pn() - 1;
    b.ack(last + ms(100), &[newest]);
    assert_eq!(b.recovery.pto_count(), 0);
    assert_eq!(b.told(Fate::Lost)[..5], pns[..]);
}

#[test]
fn a_late_timer_and_probes_that_cannot_be_sent_do_not_spin() {
    let mut b = Bench::measured();
    b.send(at_ms(0));
    let mut now = at_ms(60_000);
    for _ in 0..50 {
        assert!(b.timeout(now).pto);
        let next = b.recovery.timeout().unwrap();
        assert!(next >= now + b.recovery.pto());
        now = next;
    }
}

#[test]
fn a_probe_is_owed_even_when_there_is_nothing_to_repeat() {
    let mut b = Bench::measured();
    let pn = b.recovery.begin_packet();
    let flags = PacketFlags { asks: Asks::Soon, ..PacketFlags::default() };
    b.recovery.finish_packet(at_ms(0), pn, 60, flags);
    let at = b.recovery.timeout().unwrap();
    assert!(b.timeout(at).pto);
    assert_eq!((b.recovery.probes_owed(), b.fates.len()), (1, 0));
}

#[test]
fn acknowledging_what_was_never_sent_is_misbehaviour() {
    let mut b = Bench::new();
    let pns = b.send_many(at_ms(0), 3);
    let future = b.recovery.next_pn();
    let refused = b.ack_with(at_ms(10), Duration::ZERO, &[pns[2], future], None);
    assert_eq!(refused, Err(PeerMisbehaved::OptimisticAck));
    assert!(b.fates.is_empty());

    // Numbers are skipped now and then; acknowledging one is no accident.
    for _ in 0..20 {
        let pns = b.send_many(at_ms(1), 50);
        b.ack(at_ms(2), &pns);
    }
    assert!(b.skipped.len() >= 4, "{:?}", b.skipped);
    for &pn in &b.skipped.clone() {
        let refused = b.ack_with(at_ms(3), Duration::ZERO, &[pn], None);
        assert_eq!(refused, Err(PeerMisbehaved::OptimisticAck), "{pn}");
    }
}

#[test]
fn a_late_packet_undoes_the_congestion_event() {
    let mut b = Bench::measured();
    let pns = b.send_many(at_ms(0), 10);
    let (window, ssthresh) = (b.recovery.window(), b.recovery.ssthresh());
    b.ack(at_ms(100), &pns[2..6]);
    assert_eq!(b.told(Fate::Lost), pns[..2]);
    let reduced = b.recovery.window();
    assert!(reduced < window);
    // One of two is not enough.
    let summary = b.ack(at_ms(101), &pns[1..6]);
    assert_eq!((summary.spurious, summary.undone), (1, false));
    let summary = b.ack(at_ms(102), &pns[..6]);
    assert_eq!((summary.spurious, summary.undone), (1, true));
    assert!(b.recovery.window() >= window);
    assert_eq!(b.recovery.ssthresh(), ssthresh);
    assert_eq!(b.told(Fate::Acked).len(), 6);
    // Patience has grown.
    let more = b.send_many(at_ms(110), 10);
    b.ack(at_ms(210), &more[4..5]);
    assert_eq!(b.told(Fate::Lost).iter().filter(|pn| **pn >= more[0]).count(), 0);
}

#[test]
fn a_real_loss_beside_a_late_packet_stays_an_event() {
    let mut b = Bench::measured();
    let pns = b.send_many(at_ms(0), 10);
    b.ack(at_ms(100), &pns[2..6]);
    let reduced = b.recovery.window();
    for n in [7, 8, 9] {
        b.ack(at_ms(101), &pns[1..n]);
    }
    assert!(b.recovery.window() <= reduced + 12_000);
    assert_eq!(b.recovery.stats().undone_events, 0);
}

#[test]
fn persistent_congestion_needs_an_unbroken_span_of_loss() {
    for (broken, expected) in [(false, 1), (true, 0)] {
        let mut b = Bench::measured();
        let span = b.recovery.pto().mul(3);
        let first = b.send(at_ms(0));
        let middle = b.send(at_ms(0) + span.div(2));
        b.send(at_ms(0) + span);
        let rest = b.send_many(at_ms(0) + span + ms(10), 5);
        let mut acked = rest.clone();
        if broken {
            acked.push(middle);
        }
        b.ack(at_ms(0) + span + ms(110), &acked);
        assert_eq!(b.recovery.stats().persistent_congestions, expected);
        assert_eq!(b.recovery.window() == 2 * SIZE as u64, !broken);
        assert!(b.told(Fate::Lost).contains(&first));
    }
}

#[test]
fn one_reduction_a_round_trip() {
    let mut b = Bench::measured();
    let pns = b.send_many(at_ms(0), 30);
    let skip = |lost: &[usize], upto: usize| -> Vec<u64> {
        (0..upto).filter(|i| !lost.contains(i)).map(|i| pns[i]).collect()
    };
    b.ack(at_ms(100), &skip(&[3], 10));
    let reduced = b.recovery.window();
    b.ack(at_ms(101), &skip(&[3, 12], 20));
    b.ack(at_ms(102), &skip(&[3, 12, 22], 30));
    assert_eq!(b.recovery.window(), reduced);
    assert_eq!((b.recovery.stats().loss_events, b.recovery.stats().packets_lost), (1, 3));
    let more = b.send_many(at_ms(110), 10);
    b.ack(at_ms(210), &more[1..]);
    assert_eq!(b.recovery.stats().loss_events, 2);
}

#[test]
fn marks_reduce_once_a_round_trip_and_cannot_be_undone() {
    let mut b = Bench::measured();
    let pns: Vec<u64> = (0..10).map(|_| b.send_packet(at_ms(0), SIZE, true, Ecn::Ect0)).collect();
    let window = b.recovery.window();
    let counts = |ect0, ce| Some(EcnCounts { ect0, ect1: 0, ce });
    b.ack_with(at_ms(100), ms(0), &pns[..4], counts(3, 1)).unwrap();
    let reduced = b.recovery.window();
    assert!(reduced < window);
    b.ack_with(at_ms(101), ms(0), &pns[..8], counts(5, 3)).unwrap();
    assert_eq!(b.recovery.window(), reduced);
    assert_eq!((b.recovery.stats().ecn_events, b.recovery.ecn_state()), (1, EcnState::Capable));
    // A peer that forgets to report ends the use of marks.
    b.ack(at_ms(102), &pns);
    assert_eq!((b.recovery.ecn_state(), b.recovery.ecn()), (EcnState::Failed, Ecn::NotEct));
}

#[test]
fn the_window_does_not_grow_unused() {
    let mut b = Bench::measured();
    let window = b.recovery.window();
    for n in 0..500 {
        let pn = b.send(at_ms(n * 200));
        b.ack(at_ms(n * 200 + 100), &[pn]);
    }
    assert_eq!(b.recovery.window(), window);
    // Used, it doubles in a round trip of slow start.
    let pns = b.send_many(at_ms(200_000), 10);
    b.ack(at_ms(200_100), &pns);
    assert_eq!(b.recovery.window(), 2 * window);
}

#[test]
fn budget_respects_the_window_and_counts_whole_packets() {
    let mut b = Bench::new();
    let Budget::Bytes(bytes) = b.recovery.send_budget(at_ms(0)) else { panic!() };
    assert_eq!(bytes, 12_000);
    b.send_many(at_ms(0), 9);
    b.send_packet(at_ms(0), 300, true, Ecn::NotEct);
    assert_eq!(b.recovery.send_budget(at_ms(0)), Budget::Window);
}

#[test]
fn a_lan_is_not_paced() {
    let mut b = Bench::new();
    b.recovery.first_rtt_sample(at_ms(0), Duration::from_micros(40));
    let mut now = at_ms(1);
    let mut held_back = 0;
    for _ in 0..2_000 {
        let mut pns = Vec::new();
        while let Budget::Bytes(bytes) = b.recovery.send_budget(now) {
            pns.extend(b.send_many(now, bytes as usize / SIZE));
        }
        held_back += u32::from(b.recovery.bytes_in_flight() + 1200 <= b.recovery.window());
        now += Duration::from_micros(40);
        b.ack(now, &pns);
        b.fates.clear();
        if b.recovery.window() > 10_000_000 {
            break;
        }
    }
    assert_eq!(held_back, 0);
    assert!(b.recovery.window() > 10_000_000);
}

#[test]
fn a_new_path_starts_afresh_and_old_packets_keep_their_contents() {
    let cfg = ConnectionConfig { initial_packet: 1400, ..ConnectionConfig::default() };
    let mut b = Bench::with(&cfg);
    b.recovery.first_rtt_sample(at_ms(0), ms(10));
    let old = b.send_many(at_ms(0), 8);
    b.ack(at_ms(10), &old[..1]);
    b.recovery.on_path_change(at_ms(11));
    assert_eq!((b.recovery.bytes_in_flight(), b.recovery.packet_size()), (0, 1200));
    assert!(!b.recovery.rtt().has_sample() && !b.recovery.is_idle());
    let window = b.recovery.window();
    let new = b.send_many(at_ms(12), 8);
    // Neither growth, nor a sample, nor an event from the old path.
    let all = |from: usize| old[from..].iter().chain(&new).copied().collect::<Vec<_>>();
    b.ack(at_ms(60), &old[6..7]);
    assert_eq!(b.told(Fate::Lost), old[1..4]);
    assert_eq!((b.recovery.window(), b.recovery.stats().loss_events), (window, 0));
    assert!(!b.recovery.rtt().has_sample());
    b.ack(at_ms(600), &all(4));
    assert_eq!((b.recovery.bytes_in_flight(), b.recovery.window() > window), (0, true));
    assert!(b.recovery.is_idle() && b.recovery.rtt().has_sample());
}

#[test]
fn what_the_interface_refuses_needs_no_loss_to_be_believed() {
    let cfg = ConnectionConfig { max_packet: 65_507, ..ConnectionConfig::default() };
    let mut b = Bench::with(&cfg);
    let probe = |b: &mut Bench, size: usize| {
        let pn = b.recovery.begin_packet();
        let flags = PacketFlags { asks: Asks::Soon, probe_mtu: true, ecn: Ecn::NotEct };
        b.recovery.finish_packet(at_ms(1), pn, size, flags);
        pn
    };
    for size in [65_507, 65_488, 8_972] {
        assert_eq!(b.recovery.mtu_probe(at_ms(1)), Some(size));
        probe(&mut b, size);
        assert_eq!(b.recovery.mtu_probe(at_ms(1)), None, "one at a time");
        b.recovery.on_probe_too_large(at_ms(1), size);
    }
    let pn = probe(&mut b, 8_952);
    let summary = b.ack(at_ms(2), &[pn]);
    assert_eq!((summary.mtu_changed, b.recovery.packet_size()), (Some(8_952), 8_952));
    assert_eq!(summary.lost_packets, 0);
    assert!(b.recovery.mtu_settled());
    // The interface shrinks under a settled connection.
    b.recovery.on_probe_too_large(at_ms(3), 8_952);
    assert_eq!(b.recovery.packet_size(), 1_200);
    assert_eq!(b.recovery.mtu_probe(at_ms(3)), Some(4_352));
}

#[test]
fn packets_that_ask_for_nothing_cost_bounded_memory_and_no_timer() {
    let mut b = Bench::new();
    for n in 0..100_000 {
        b.send_packet(at_ms(n), 60, false, Ecn::NotEct);
        assert_eq!(b.recovery.ping_wanted(), n >= 31);
    }
    assert!(b.recovery.timeout().is_none() && b.recovery.is_idle());
    assert_eq!(b.recovery.bytes_in_flight(), 0);
    assert!(b.recovery.heap() < 16 * 1024, "{}", b.recovery.heap());
    b.send(at_ms(100_000));
    assert!(!b.recovery.ping_wanted());
    b.recovery.shrink();
    assert!(b.recovery.heap() < 256, "{}", b.recovery.heap());
}

#[test]
fn a_peer_that_acknowledges_nothing_is_bounded() {
    let mut b = Bench::new();
    b.send(at_ms(0));
    let mut sent = 0;
    while !b.recovery.is_full() {
        b.send_packet(at_ms(1), 60, false, Ecn::NotEct);
        sent += 1;
    }
    assert!(sent <= MAX_TRACKED_PACKETS);
    assert_eq!(b.recovery.send_budget(at_ms(2)), Budget::Window);
}

#[test]
fn memory_follows_use() {
    let mut b = Bench::new();
    assert_eq!(b.recovery.heap(), 0);
    let pns = b.send_many(at_ms(0), 40_000);
    b.ack(at_ms(1), &pns.iter().copied().filter(|pn| pn % 10_000 != 77).collect::<Vec<_>>());
    b.ack(at_ms(2), &pns[pns.len() - 40..]);
    assert!(b.recovery.heap() > 1_000_000);
    for n in 0..40 {
        let pns = b.send_many(at_ms(1_000 + 100 * n), 20);
        b.ack(at_ms(1_050 + 100 * n), &pns);
    }
    assert!(b.recovery.heap() < 16 * 1024, "{}", b.recovery.heap());
    b.recovery.shrink();
    assert_eq!(b.recovery.heap(), 0);
}

#[test]
fn abandoned_and_forgotten_packets_leave_no_trace() {
    let mut b = Bench::new();
    let first = b.send(at_ms(0));
    let pn = b.recovery.begin_packet();
    b.recovery.record(record(999));
    b.recovery.abandon_packet(pn);
    assert_eq!(b.recovery.next_pn(), pn);
    // Begun and never finished: the number is not used again.
    let pn = b.recovery.begin_packet();
    b.recovery.record(record(998));
    let next = b.send(at_ms(0));
    assert!(next > pn);
    b.ack(at_ms(10), &[first, next]);
    assert_eq!(b.told(Fate::Acked), [next, first]);
}

/// What a simple model knows of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Seen {
    Flying,
    Lost,
    Acked,
}

/// Brings the model up to date with what recovery told.
fn absorb(b: &mut Bench, model: &mut BTreeMap<u64, Seen>) {
    for (fate, pn) in std::mem::take(&mut b.fates) {
        let state = model.get_mut(&pn).unwrap();
        match fate {
            Fate::Acked => {
                assert_ne!(*state, Seen::Acked, "told twice");
                *state = Seen::Acked;
            }
            Fate::Lost => {
                assert_eq!(*state, Seen::Flying);
                *state = Seen::Lost;
            }
            Fate::Probe => assert_eq!(*state, Seen::Flying),
        }
    }
}

#[test]
fn agrees_with_a_simple_model() {
    for seed in 1..120u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut b = Bench::measured();
        let mut model: BTreeMap<u64, Seen> = BTreeMap::new();
        let mut now = at_ms(1);
        for _ in 0..400 {
            now += Duration::from_micros(random.next() % 20_000);
            if b.recovery.timeout().is_some_and(|at| at <= now) {
                b.timeout(now);
                absorb(&mut b, &mut model);
            }
            if random.chance(600_000) {
                for _ in 0..random.next() % 20 {
                    model.insert(b.send(now), Seen::Flying);
                }
            } else if let (Some(&lo), Some(&hi)) = (model.keys().next(), model.keys().last()) {
                // Up to four random ranges near the end, skipped numbers left out.
                let span = (hi - lo + 1).min(80);
                let mut pns = Vec::new();
                for _ in 0..=random.next() % 4 {
                    let from = hi + 1 - span + random.next() % span;
                    let to = (from + random.next() % 30).min(hi);
                    pns.extend((from..=to).filter(|pn| model.contains_key(pn)));
                }
                if !pns.is_empty() {
                    b.ack(now, &pns);
                    for pn in &pns {
                        let told = b.fates.contains(&(Fate::Acked, *pn));
                        let before = model.get(pn).copied();
                        // A packet lost long ago may be forgotten; all others must be told.
                        assert!(
                            told != (before == Some(Seen::Acked))
                                || (before == Some(Seen::Lost) && *pn < b.recovery.sent.base()),
                            "seed {seed} pn {pn} {before:?}"
                        );
                    }
                }
            }
            absorb(&mut b, &mut model);
            let flying = model.values().filter(|s| **s == Seen::Flying).count();
            assert_eq!(b.recovery.bytes_in_flight(), (flying * SIZE) as u64, "seed {seed}");
            assert_eq!(b.recovery.is_idle(), flying == 0);
            assert_eq!(b.recovery.timeout().is_some(), flying > 0);
        }
    }
}

#[test]
fn nothing_probes_for_unreliable_messages() {
    let mut bench = Bench::measured();
    let later = |bench: &mut Bench, now| {
        let pn = bench.recovery.begin_packet();
        let flags = PacketFlags { asks: Asks::Later, ..PacketFlags::default() };
        bench.recovery.finish_packet(now, pn, SIZE, flags);
        pn
    };
    let first = later(&mut bench, at_ms(0));
    assert!(bench.recovery.timeout().is_none() && bench.recovery.is_idle());
    assert_eq!(bench.recovery.bytes_in_flight(), SIZE as u64);
    // A late acknowledgement is no longer round trip.
    let before = bench.recovery.rtt().smoothed();
    bench.ack_with(at_ms(340), ms(240), &[first], None).unwrap();
    assert_eq!(bench.recovery.rtt().smoothed(), before);
    assert_eq!(bench.recovery.bytes_in_flight(), 0);
    // Where much is in flight, silence means something.
    let window = bench.recovery.window();
    while !bench.recovery.wants_answer() {
        later(&mut bench, at_ms(400));
        assert!(bench.recovery.bytes_in_flight() < window);
    }
    later(&mut bench, at_ms(400));
    assert!(bench.recovery.timeout().is_some_and(|t| t > at_ms(500) && t < at_ms(1000)));
}
