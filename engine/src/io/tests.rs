//! The same tests for every real driver, and for the drivers crossing each other.

mod streams;

use super::*;
use crate::buf::Lease;
use crate::sys::{self, BufferSizes};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::thread;

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
const PATIENCE: Duration = Duration::from_secs(10);

/// A received item, copied out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Got {
    pub(super) socket: u16,
    pub(super) remote: SocketAddr,
    pub(super) local: Option<IpAddr>,
    pub(super) ecn: u8,
    pub(super) stride: usize,
    pub(super) bytes: Vec<u8>,
}

impl Got {
    fn packets(&self) -> impl Iterator<Item = &[u8]> {
        // An empty datagram is one packet too.
        self.bytes.chunks(self.stride.max(1)).chain(self.bytes.is_empty().then_some(&[][..]))
    }
}

pub(super) fn meta(socket: u16, remote: SocketAddr, len: usize, segment: usize) -> TxMeta {
    TxMeta { socket, remote, local: None, len, segment, ecn: 0, probe: false }
}

/// Sends, waiting for a buffer if necessary. What arrives meanwhile is lost.
pub(super) fn send<D: Driver>(d: &mut D, meta: TxMeta, bytes: &[u8]) {
    let mut batch = Batch::default();
    let mut buf = loop {
        match d.lend() {
            Some(buf) => break buf,
            None => d.poll(Some(Duration::from_millis(1)), &mut batch).unwrap(),
        }
        for item in batch.rx.drain(..) {
            d.release(item);
        }
    };
    d.bytes(&mut buf)[..bytes.len()].copy_from_slice(bytes);
    d.send(buf, meta);
}

pub(super) fn take<D: Driver>(d: &mut D, batch: &mut Batch, out: &mut Vec<Got>) {
    for item in batch.rx.drain(..) {
        out.push(Got {
            socket: item.socket,
            remote: item.remote,
            local: item.local,
            ecn: item.ecn,
            stride: item.stride,
            bytes: d.rx_bytes(&item).to_vec(),
        });
        d.release(item);
    }
}

/// Polls until `packets` datagrams came or patience ends.
fn receive<D: Driver>(d: &mut D, packets: usize) -> Vec<Got> {
    let (mut batch, mut out) = (Batch::default(), Vec::new());
    let deadline = Instant::now() + PATIENCE;
    while out.iter().map(|g: &Got| g.packets().count()).sum::<usize>() < packets {
        assert!(Instant::now() < deadline, "patience ended with {} items", out.len());
        d.poll(Some(Duration::from_millis(100)), &mut batch).unwrap();
        take(d, &mut batch, &mut out);
    }
    out
}

/// Lets a driver notice what became of what it sent.
fn settle<D: Driver>(d: &mut D) {
    let mut batch = Batch::default();
    for _ in 0..3 {
        d.poll(Some(Duration::ZERO), &mut batch).unwrap();
    }
    assert!(batch.failures.is_empty() && batch.rx.is_empty());
}

fn socket(ip: IpAddr) -> UdpSocket {
    sys::bind_group(SocketAddr::new(ip, 0), 1, BufferSizes::default()).unwrap().remove(0)
}

struct Pair<A, B> {
    a: A,
    b: B,
    to_a: SocketAddr,
    to_b: SocketAddr,
    at_a: u16,
    at_b: u16,
}

fn pair<A: Driver, B: Driver>(mut a: A, mut b: B, ip: IpAddr) -> Pair<A, B> {
    let (socket_a, socket_b) = (socket(ip), socket(ip));
    let (to_a, to_b) = (socket_a.local_addr().unwrap(), socket_b.local_addr().unwrap());
    let at_a = a.add_socket(socket_a).unwrap();
    let at_b = b.add_socket(socket_b).unwrap();
    Pair { a, b, to_a, to_b, at_a, at_b }
}

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + seed * 7 + (i >> 8)) as u8).collect()
}

fn single_packets<A: Driver, B: Driver>(mut p: Pair<A, B>) {
    // Loopback's MTU is 65,536, less 48 for the headers of IPv6 and UDP.
    let largest = if p.to_a.is_ipv6() { 65_488 } else { MAX_TRAIN };
    for (i, len) in [1, 2, 100, 1200, 1452, 9000, largest].into_iter().enumerate() {
        let bytes = pattern(len, i);
        send(&mut p.a, meta(p.at_a, p.to_b, len, len), &bytes);
        p.a.flush().unwrap();
        let got = receive(&mut p.b, 1).remove(0);
        let local = Some(p.to_b.ip());
        let stride = len;
        assert_eq!(got, Got { socket: p.at_b, remote: p.to_a, local, ecn: 0, stride, bytes });
        let bytes = pattern(len, i + 1);
        send(&mut p.b, meta(p.at_b, p.to_a, len, len), &bytes);
        p.b.flush().unwrap();
        assert_eq!(receive(&mut p.a, 1).remove(0).bytes, bytes);
    }
    assert_eq!(p.a.stats().tx_packets, 7);
    assert_eq!(p.a.stats().tx_gso, 0, "no segmentation for one packet");
    assert_eq!(p.b.stats().rx_packets, 7);
    if largest < MAX_TRAIN {
        let mut batch = Batch::default();
        let probe = TxMeta { probe: true, ..meta(p.at_a, p.to_b, largest + 1, largest + 1) };
        send(&mut p.a, probe, &vec![0; 65_489]);
        let deadline = Instant::now() + PATIENCE;
        while batch.failures.is_empty() {
            assert!(Instant::now() < deadline);
            p.a.poll(Some(Duration::from_millis(1)), &mut batch).unwrap();
        }
        assert_eq!(batch.failures[0].error, TxError::TooLarge, "not fragmented");
        assert_eq!(batch.failures[0].meta, probe);
    }
}

fn trains<A: Driver, B: Driver>(mut p: Pair<A, B>) {
    for (segment, len) in
        [(1000, 64_000), (1000, 63_001), (1452, 1452 * 45), (100, 6400), (1200, 1300), (1, 64)]
    {
        let bytes = pattern(len, segment);
        send(&mut p.a, meta(p.at_a, p.to_b, len, segment), &bytes);
        settle(&mut p.a);
        let got = receive(&mut p.b, len.div_ceil(segment));
        assert_eq!(got.iter().flat_map(|g| g.bytes.clone()).collect::<Vec<_>>(), bytes);
        for got in &got {
            assert_eq!(got.stride.min(got.bytes.len()), segment.min(got.bytes.len()));
        }
        if p.b.capabilities().gro && p.a.capabilities().gso && segment > 1 {
            assert_eq!(got.len(), 1, "one train of {len} in {segment}s stays one");
        }
    }
    let stats = p.a.stats();
    assert_eq!(stats.tx_gso, 6);
    assert_eq!(stats.tx_trains, 6);
    assert!(p.b.stats().rx_gro >= 5);
}

fn ecn_marks<A: Driver, B: Driver>(mut p: Pair<A, B>) {
    for ecn in [0, 1, 2, 3, 0] {
        for segment in [500, 1000] {
            send(&mut p.a, TxMeta { ecn, ..meta(p.at_a, p.to_b, 1000, segment) }, &[7; 1000]);
            p.a.flush().unwrap();
            for got in receive(&mut p.b, 1000 / segment) {
                assert_eq!(got.ecn, ecn);
            }
        }
    }
}

/// Wildcard sockets learn where each datagram was sent to, and answer from there.
fn local_addresses<A: Driver, B: Driver>(mut a: A, mut b: B) {
    let (any4, any6) = (socket(Ipv4Addr::UNSPECIFIED.into()), socket(Ipv6Addr::UNSPECIFIED.into()));
    let (port4, port6) = (any4.local_addr().unwrap().port(), any6.local_addr().unwrap().port());
    let at_b4 = b.add_socket(any4).unwrap();
    let at_b6 = b.add_socket(any6).unwrap();
    let at_a4 = a.add_socket(socket(V4)).unwrap();
    let at_a6 = a.add_socket(socket(V6)).unwrap();
    for (to, port, from, at) in [
        (V4, port4, at_a4, at_b4),
        (Ipv4Addr::new(127, 0, 0, 2).into(), port4, at_a4, at_b4),
        (Ipv4Addr::new(127, 9, 8, 7).into(), port4, at_a4, at_b4),
        (V6, port6, at_a6, at_b6),
    ] {
        send(&mut a, meta(from, SocketAddr::new(to, port), 50, 50), &[1; 50]);
        a.flush().unwrap();
        let got = receive(&mut b, 1).remove(0);
        assert_eq!((got.local, got.socket), (Some(to), at));
        let back = TxMeta { local: got.local, ecn: 2, ..meta(at, got.remote, 60, 30) };
        send(&mut b, back, &[2; 60]);
        b.flush().unwrap();
        for got in receive(&mut a, 2) {
            assert_eq!(got.remote, SocketAddr::new(to, port));
            assert_eq!((got.socket, got.ecn), (from, 2));
        }
    }
}

/// An empty datagram ends a multishot receive; anybody can send one.
fn empty_datagrams<A: Driver, B: Driver>(mut p: Pair<A, B>) {
    for round in 0..20 {
        for i in 0..5 {
            let len = if (i + round) % 2 == 0 { 0 } else { 10 };
            send(&mut p.a, meta(p.at_a, p.to_b, len, len), &vec![3; len]);
        }
        p.a.flush().unwrap();
        let got = receive(&mut p.b, 5);
        let empty = got.iter().flat_map(Got::packets).filter(|b| b.is_empty()).count();
        assert_eq!(empty, 3 - round % 2);
    }
}

/// Far more datagrams than buffers arrive while nobody polls.
fn more_than_buffers<A: Driver, B: Driver>(mut p: Pair<A, B>) {
    for round in 0..3 {
        // Different sizes, so that nothing is merged.
        for i in 0..200usize {
            let len = 100 + (i * 37) % 200;
            send(&mut p.a, meta(p.at_a, p.to_b, len, len), &pattern(len, i + round));
            p.a.flush().unwrap();
        }
        let got = receive(&mut p.b, 200);
        for (i, packet) in got.iter().flat_map(Got::packets).enumerate() {
            let len = 100 + (i * 37) % 200;
            assert_eq!(packet, pattern(len, i + round), "in order, each once");
        }
    }
    assert_eq!(p.b.stats().rx_starved, 0, "buffers were there before each sleep");
}

fn wakes<D: Driver>(mut d: D) {
    let waker = d.waker();
    let mut batch = Batch::default();
    // Before the poll.
    waker.wake();
    waker.wake();
    let start = Instant::now();
    d.poll(None, &mut batch).unwrap();
    assert!(start.elapsed() < Duration::from_secs(1));
    // It is used up.
    d.poll(Some(Duration::from_millis(5)), &mut batch).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(5));
    // During the poll, many times.
    for i in 0..50u32 {
        let other = waker.clone();
        let thread = thread::spawn(move || {
            thread::sleep(Duration::from_micros(u64::from(i * 40)));
            other.wake();
        });
        let start = Instant::now();
        let wakes = d.stats().wakes;
        while d.stats().wakes == wakes {
            d.poll(None, &mut batch).unwrap();
        }
        assert!(start.elapsed() < Duration::from_secs(2), "woken late");
        thread.join().unwrap();
    }
    assert!(batch.rx.is_empty() && batch.failures.is_empty());
    drop(d);
    waker.wake();
}

/// No wake is lost however it falls against the beginning of a sleep.
fn wakes_are_not_lost<D: Driver>(mut d: D) {
    use std::sync::atomic::{AtomicU64, Ordering};
    let mail = std::sync::Arc::new(AtomicU64::new(0));
    let (waker, mailbox) = (d.waker(), mail.clone());
    let rounds = 5000;
    let thread = thread::spawn(move || {
        for i in 0..rounds {
            mailbox.fetch_add(1, Ordering::SeqCst);
            waker.wake();
            if i % 7 == 0 {
                thread::yield_now();
            }
        }
    });
    let mut batch = Batch::default();
    let mut seen = 0;
    let deadline = Instant::now() + PATIENCE;
    while seen < rounds {
        d.poll(Some(Duration::from_secs(5)), &mut batch).unwrap();
        seen = mail.load(Ordering::SeqCst);
        assert!(Instant::now() < deadline, "a wake was lost at {seen}");
    }
    thread.join().unwrap();
}

fn timeouts<D: Driver>(mut d: D) {
    d.add_socket(socket(V4)).unwrap();
    let mut batch = Batch::default();
    d.poll(Some(Duration::ZERO), &mut batch).unwrap();
    for micros in [200, 1_000, 3_000, 12_345] {
        let time = Duration::from_micros(micros);
        let start = Instant::now();
        d.poll(Some(time), &mut batch).unwrap();
        let slept = start.elapsed();
        assert!(slept >= time.mul_f64(0.9), "{slept:?} of {time:?}");
        assert!(slept < time + Duration::from_millis(500), "{slept:?} of {time:?}");
    }
    let start = Instant::now();
    for _ in 0..100 {
        d.poll(Some(Duration::ZERO), &mut batch).unwrap();
    }
    assert!(start.elapsed() < Duration::from_millis(500));
    assert!(batch.rx.is_empty() && !batch.more);
}

/// Leased bytes stay as they are, whatever arrives, until they are dropped elsewhere.
fn leases<A: Driver, B: Driver>(mut p: Pair<A, B>, buffers: usize, reserve: usize) {
    let mut held: Vec<(usize, Lease)> = Vec::new();
    let mut refused = 0;
    let mut batch = Batch::default();
    for i in 0..buffers * 3 {
        let bytes = pattern(2000, i);
        send(&mut p.a, meta(p.at_a, p.to_b, 2000, 2000), &bytes);
        p.a.flush().unwrap();
        let deadline = Instant::now() + PATIENCE;
        while batch.rx.is_empty() {
            assert!(Instant::now() < deadline);
            p.b.poll(Some(Duration::from_millis(100)), &mut batch).unwrap();
        }
        for item in batch.rx.drain(..) {
            assert!(p.b.lease(&item, 1990, 11).is_none(), "beyond the end");
            match p.b.lease(&item, 500, 1000) {
                Some(lease) => held.push((i, lease)),
                None => refused += 1,
            }
            p.b.release(item);
        }
    }
    assert_eq!(held.len(), buffers - reserve);
    assert_eq!(refused, buffers * 2 + reserve);
    let check = move || {
        for (i, lease) in held {
            assert_eq!(&*lease, &pattern(2000, i)[500..1500]);
        }
    };
    thread::spawn(check).join().unwrap();
    p.b.poll(Some(Duration::ZERO), &mut batch).unwrap();
    send(&mut p.a, meta(p.at_a, p.to_b, 10, 10), &[1; 10]);
    p.a.flush().unwrap();
    while batch.rx.is_empty() {
        p.b.poll(Some(Duration::from_millis(100)), &mut batch).unwrap();
    }
    let item = batch.rx.pop().unwrap();
    let late = p.b.lease(&item, 0, 10).expect("the buffers are back");
    p.b.release(item);
    drop(p);
    assert_eq!(&*late, &[1; 10], "a lease outlives its driver");
}

fn truncation<A: Driver, B: Driver>(mut p: Pair<A, B>) {
    for len in [9000, 100, 20_000, 200] {
        send(&mut p.a, meta(p.at_a, p.to_b, len, len), &pattern(len, 1));
        p.a.flush().unwrap();
    }
    let got = receive(&mut p.b, 2);
    assert_eq!(got.iter().map(|g| g.bytes.len()).collect::<Vec<_>>(), [100, 200]);
    assert_eq!(p.b.stats().rx_truncated, 2);
}

/// Short packets reach the socket that their connection id names; everything else some socket.
fn steering<D: Driver>(mut drivers: [D; 2], mut sender: D, ip: IpAddr) {
    let group = sys::bind_group(SocketAddr::new(ip, 0), 2, BufferSizes::default()).unwrap();
    let to = group[0].local_addr().unwrap();
    for (driver, socket) in drivers.iter_mut().zip(group) {
        assert_eq!(socket.local_addr().unwrap(), to);
        driver.add_socket(socket).unwrap();
    }
    let from = sender.add_socket(socket(ip)).unwrap();
    let mut expected = [0; 2];
    for i in 0..100u8 {
        let shard = i % 2;
        let mut packet = [i; 40];
        packet[0] = 0x40 | (i & 1);
        packet[1] = i.wrapping_mul(77);
        packet[2] = packet[1] ^ shard;
        expected[usize::from(shard)] += 1;
        send(&mut sender, meta(from, to, 40, 40), &packet);
        sender.flush().unwrap();
    }
    for (shard, driver) in drivers.iter_mut().enumerate() {
        for got in receive(driver, expected[shard]) {
            for packet in got.packets() {
                assert_eq!(usize::from(packet[1] ^ packet[2]), shard);
            }
        }
    }
    // Long packets, shards that do not exist, and packets too short to say.
    let others: [&[u8]; 5] = [&[0x80, 1, 0, 0], &[0x40, 9, 0, 1], &[0x40, 1], &[0x40], &[]];
    for packet in others {
        send(&mut sender, meta(from, to, packet.len(), packet.len()), packet);
        sender.flush().unwrap();
    }
    let (mut batch, mut out) = (Batch::default(), Vec::new());
    let deadline = Instant::now() + PATIENCE;
    while out.len() < others.len() {
        assert!(Instant::now() < deadline);
        for driver in &mut drivers {
            driver.poll(Some(Duration::from_millis(5)), &mut batch).unwrap();
            take(driver, &mut batch, &mut out);
        }
    }
}

/// 100,000 packets in trains of all sizes, with at most a window of them on the way.
fn stress<A: Driver, B: Driver>(mut p: Pair<A, B>, total: usize) {
    let (mut sent, mut received, mut train) = (0u32, 0u32, 1usize);
    let (mut batch, mut back) = (Batch::default(), Batch::default());
    let deadline = Instant::now() + PATIENCE * 6;
    while (received as usize) < total {
        assert!(Instant::now() < deadline, "{received} of {sent} sent: {:?}", p.b.stats());
        while (sent as usize) < total
            && sent - received < 400
            && let Some(mut buf) = p.a.lend()
        {
            let size = 40 + (train * 13) % 900;
            let count = train % 64 + 1;
            train += 1;
            let bytes = p.a.bytes(&mut buf);
            for packet in bytes[..size * count].chunks_exact_mut(size) {
                packet[..4].copy_from_slice(&sent.to_be_bytes());
                packet[4..].fill(sent as u8);
                sent += 1;
            }
            p.a.send(buf, meta(p.at_a, p.to_b, size * count, size));
        }
        p.a.poll(Some(Duration::ZERO), &mut back).unwrap();
        assert!(back.failures.is_empty(), "{:?}", back.failures);
        p.b.poll(Some(Duration::from_millis(1)), &mut batch).unwrap();
        for item in batch.rx.drain(..) {
            for packet in p.b.rx_bytes(&item).chunks(item.stride) {
                let number = u32::from_be_bytes(*packet.first_chunk().unwrap());
                assert_eq!(number, received, "nothing lost or out of order on loopback");
                assert!(packet[4..].iter().all(|b| *b == number as u8));
                received += 1;
            }
            p.b.release(item);
        }
    }
    assert_eq!(p.b.stats().rx_packets, u64::from(received));
    assert_eq!(p.a.stats().tx_packets, u64::from(sent));
    assert_eq!(p.b.stats().rx_dropped, 0);
}

/// Where the system refuses to segment, the packets go one by one, all of them.
#[cfg(target_os = "linux")]
fn refused_segmentation<A: Driver, B: Driver>(mut a: A, b: B) {
    // Without checksums the kernel does not segment.
    let without = socket(V4);
    no_check(&without);
    let from = a.add_socket(without).unwrap();
    let mut p = pair(a, b, V4);
    for round in 0..3 {
        let bytes = pattern(60_001, round);
        send(&mut p.a, meta(from, p.to_b, bytes.len(), 1000), &bytes);
        settle(&mut p.a);
        let got = receive(&mut p.b, 61);
        assert_eq!(got.iter().flat_map(|g| g.bytes.clone()).collect::<Vec<_>>(), bytes);
    }
    let stats = *p.a.stats();
    assert_eq!((stats.gso_refused, stats.tx_failed), (1, 0), "refused once, remembered");
    assert_eq!(stats.tx_packets, 3 * 61);
    // Other paths are not affected: another address of this machine.
    let elsewhere = socket(Ipv4Addr::new(127, 0, 0, 3).into());
    let to = elsewhere.local_addr().unwrap();
    p.b.add_socket(elsewhere).unwrap();
    send(&mut p.a, meta(p.at_a, to, 2000, 1000), &[0; 2000]);
    settle(&mut p.a);
    receive(&mut p.b, 2);
    assert_eq!(p.a.stats().tx_gso, 1);
    assert_eq!(p.a.stats().gso_refused, 1);
}

#[cfg(target_os = "linux")]
fn no_check(socket: &UdpSocket) {
    crate::sys::linux::set_no_checksum(socket).unwrap();
}

fn failures<D: Driver>(mut d: D) {
    let at = d.add_socket(socket(V4)).unwrap();
    let mut batch = Batch::default();
    // A loopback source cannot leave the machine.
    let remote: SocketAddr = ([192, 0, 2, 1], 9).into();
    for (socket, remote, len, segment) in
        [(at, remote, 100, 100), (at, remote, 3000, 1000), (77, remote, 10, 10)]
    {
        send(&mut d, meta(socket, remote, len, segment), &vec![0; len]);
        let deadline = Instant::now() + PATIENCE;
        while batch.failures.is_empty() {
            assert!(Instant::now() < deadline);
            d.poll(Some(Duration::from_millis(10)), &mut batch).unwrap();
        }
        let failure = batch.failures.pop().unwrap();
        assert_eq!((failure.meta.len, failure.meta.remote), (len, remote));
        assert_ne!(failure.error, TxError::TooLarge);
        assert!(batch.failures.is_empty());
    }
    // Nothing leaked.
    let lent: Vec<_> = std::iter::from_fn(|| d.lend()).collect();
    assert_eq!(lent.len(), 8);
    for buf in lent {
        d.give_back(buf);
    }
}

fn removal<A: Driver, B: Driver>(mut p: Pair<A, B>) {
    send(&mut p.a, meta(p.at_a, p.to_b, 10, 10), &[1; 10]);
    p.a.flush().unwrap();
    receive(&mut p.b, 1);
    p.b.remove_socket(p.at_b).unwrap();
    assert!(p.b.remove_socket(p.at_b).is_err());
    assert!(p.b.remove_socket(200).is_err());
    for _ in 0..3 {
        let other = socket(V4);
        let to = other.local_addr().unwrap();
        let at = p.b.add_socket(other).unwrap();
        send(&mut p.a, meta(p.at_a, p.to_b, 20, 20), &[2; 20]);
        send(&mut p.a, meta(p.at_a, to, 30, 30), &[3; 30]);
        p.a.flush().unwrap();
        let got = receive(&mut p.b, 1);
        assert_eq!((got.len(), got[0].bytes.len(), got[0].socket), (1, 30, at));
        p.b.remove_socket(at).unwrap();
        let mut batch = Batch::default();
        for _ in 0..3 {
            p.b.poll(Some(Duration::ZERO), &mut batch).unwrap();
        }
    }
    drop(p.b);
    // The port is free again.
    UdpSocket::bind(p.to_b).unwrap();
}

/// A foreign event loop sleeps on the descriptor.
#[cfg(target_os = "linux")]
fn foreign_loop<A: Driver, B: Driver>(mut p: Pair<A, B>) {
    let mut batch = Batch::default();
    let fd = p.b.fd().unwrap();
    let short = Duration::from_millis(20);
    for round in 0..20 {
        // Nothing to do: not readable.
        loop {
            p.b.poll(Some(Duration::ZERO), &mut batch).unwrap();
            assert!(batch.rx.is_empty());
            if !batch.more {
                break;
            }
        }
        assert!(!sys::sleep_readable(fd, short).unwrap(), "round {round}: nothing to do");
        send(&mut p.a, meta(p.at_a, p.to_b, 10, 10), &[1; 10]);
        p.a.flush().unwrap();
        assert!(sys::sleep_readable(fd, PATIENCE).unwrap());
        receive(&mut p.b, 1);
        let start = Instant::now();
        let waker = p.b.waker();
        let sender = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        let to = p.to_b;
        let thread = thread::spawn(move || {
            thread::sleep(Duration::from_millis(2));
            if round % 2 == 0 {
                waker.wake();
            } else {
                sender.send_to(&[1; 10], to).unwrap();
            }
        });
        assert!(sys::sleep_readable(fd, PATIENCE).unwrap(), "round {round}: a wake");
        assert!(start.elapsed() < Duration::from_secs(2), "round {round}: late");
        thread.join().unwrap();
        if round % 2 == 1 {
            receive(&mut p.b, 1);
        }
    }
}

fn config() -> DriverConfig {
    DriverConfig {
        rx_buffers: 32,
        rx_posted: 16,
        tx_buffers: 8,
        lease_reserve: 8,
        ..DriverConfig::default()
    }
}

#[allow(clippy::unnecessary_wraps, reason = "the same form for every driver")]
fn mio(config: &DriverConfig) -> Option<MioDriver> {
    Some(MioDriver::new(config).unwrap())
}

/// All tests for one combination of drivers.
macro_rules! suite {
    ($name:ident, $a:expr, $b:expr) => {
        mod $name {
            use super::*;

            macro_rules! both {
                ($a2:ident, $b2:ident, $config:expr, $body:expr) => {
                    let config = $config;
                    let (Some($a2), Some($b2)) = ($a(&config), $b(&config)) else { return };
                    $body
                };
            }

            #[test]
            fn single_packets() {
                for ip in [V4, V6] {
                    both!(a, b, config(), super::single_packets(pair(a, b, ip)));
                }
            }
            #[test]
            fn trains() {
                for ip in [V4, V6] {
                    both!(a, b, config(), super::trains(pair(a, b, ip)));
                }
            }
            #[test]
            fn ecn_marks() {
                for ip in [V4, V6] {
                    both!(a, b, config(), super::ecn_marks(pair(a, b, ip)));
                }
            }
            #[test]
            fn local_addresses() {
                both!(a, b, config(), super::local_addresses(a, b));
            }
            #[test]
            fn empty_datagrams() {
                for ip in [V4, V6] {
                    both!(a, b, config(), super::empty_datagrams(pair(a, b, ip)));
                }
            }
            #[test]
            fn more_than_buffers() {
                let config = DriverConfig {
                    rx_buffers: 8,
                    rx_posted: 4,
                    lease_reserve: 4,
                    max_batch: 5,
                    ..config()
                };
                both!(a, b, config, super::more_than_buffers(pair(a, b, V4)));
            }
            #[test]
            fn leases() {
                both!(a, b, config(), super::leases(pair(a, b, V4), 32, 8));
            }
            #[test]
            fn truncation() {
                let config = DriverConfig { rx_buffer_bytes: 2048, ..config() };
                both!(a, b, config, super::truncation(pair(a, b, V4)));
            }
            #[test]
            fn stress() {
                for ip in [V4, V6] {
                    both!(a, b, config(), super::stress(pair(a, b, ip), 50_000));
                }
            }
            #[test]
            #[cfg(target_os = "linux")]
            fn refused_segmentation() {
                both!(a, b, config(), super::refused_segmentation(a, b));
            }
            #[test]
            fn removal() {
                both!(a, b, config(), super::removal(pair(a, b, V4)));
            }
            #[test]
            #[cfg(target_os = "linux")]
            fn foreign_loop() {
                both!(a, b, config(), super::foreign_loop(pair(a, b, V4)));
            }
        }
    };
}

/// Tests of one driver alone.
macro_rules! alone {
    ($name:ident, $make:expr) => {
        mod $name {
            use super::*;

            #[test]
            fn wakes() {
                let Some(d) = $make(&config()) else { return };
                super::wakes(d);
            }
            #[test]
            fn wakes_are_not_lost() {
                let Some(d) = $make(&config()) else { return };
                super::wakes_are_not_lost(d);
            }
            #[test]
            fn timeouts() {
                let Some(d) = $make(&config()) else { return };
                super::timeouts(d);
            }
            #[test]
            fn failures() {
                let Some(d) = $make(&config()) else { return };
                super::failures(d);
            }
            #[test]
            #[cfg(target_os = "linux")]
            fn steering() {
                for ip in [V4, V6] {
                    let make = || $make(&config());
                    let (Some(a), Some(b), Some(c)) = (make(), make(), make()) else { return };
                    super::steering([a, b], c, ip);
                }
            }
        }
    };
}

#[cfg(target_os = "linux")]
fn uring(config: &DriverConfig) -> Option<UringDriver> {
    match UringDriver::new(config) {
        Ok(driver) => Some(driver),
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    }
}

/// io_uring as on a kernel without the newer set-up flags and without messages between rings.
#[cfg(target_os = "linux")]
fn plain_uring(config: &DriverConfig) -> Option<UringDriver> {
    UringDriver::new(config).ok()?;
    Some(uring::tests::plain(config))
}

/// io_uring for a shard that is driven from changing threads.
#[cfg(target_os = "linux")]
fn unbound_uring(config: &DriverConfig) -> Option<UringDriver> {
    uring(&DriverConfig { thread_bound: false, ..config.clone() })
}

suite!(mio_to_mio, mio, mio);
alone!(mio_alone, mio);
#[cfg(target_os = "linux")]
suite!(uring_to_uring, uring, uring);
#[cfg(target_os = "linux")]
suite!(mio_to_uring, mio, uring);
#[cfg(target_os = "linux")]
suite!(uring_to_mio, uring, mio);
#[cfg(target_os = "linux")]
alone!(uring_alone, uring);
#[cfg(target_os = "linux")]
suite!(plain_uring_to_mio, plain_uring, mio);
#[cfg(target_os = "linux")]
suite!(mio_to_plain_uring, mio, plain_uring);
#[cfg(target_os = "linux")]
alone!(plain_uring_alone, plain_uring);
#[cfg(target_os = "linux")]
suite!(unbound_uring_to_uring, unbound_uring, uring);
#[cfg(target_os = "linux")]
alone!(unbound_uring_alone, unbound_uring);

/// A driver that is not bound to its thread goes from thread to thread with everything under way.
#[cfg(target_os = "linux")]
#[test]
fn drivers_change_threads() {
    let Some(d) = unbound_uring(&config()) else { return };
    let mut p = pair(d, MioDriver::new(&config()).unwrap(), V4);
    for _ in 0..5 {
        let (to_a, at_b) = (p.to_a, p.at_b);
        send(&mut p.b, meta(at_b, to_a, 3000, 1000), &[1; 3000]);
        p.b.flush().unwrap();
        p = thread::spawn(move || {
            receive(&mut p.a, 3);
            send(&mut p.a, meta(p.at_a, p.to_b, 10, 10), &[1; 10]);
            p.a.flush().unwrap();
            p
        })
        .join()
        .unwrap();
        receive(&mut p.b, 1);
    }
}

/// A path whose interface takes less than what is sent.
#[cfg(target_os = "linux")]
fn smaller_interface<D: Driver + 'static>(make: fn(&DriverConfig) -> Option<D>) {
    use crate::sys::linux::isolate;
    let test = move || {
        if !isolate::private_network(1500) {
            eprintln!("skipped: no private network allowed");
            return;
        }
        for (ip, most) in [(V4, 1472), (V6, 1452)] {
            let (Some(a), Some(b)) = (make(&config()), make(&config())) else { return };
            let mut p = pair(a, b, ip);
            for (len, segment) in [(most + 1, most + 1), (5 * (most + 1), most + 1)] {
                send(&mut p.a, meta(p.at_a, p.to_b, len, segment), &vec![1; len]);
                let mut batch = Batch::default();
                let deadline = Instant::now() + PATIENCE;
                while batch.failures.is_empty() {
                    assert!(Instant::now() < deadline);
                    p.a.poll(Some(Duration::from_millis(10)), &mut batch).unwrap();
                }
                assert_eq!(batch.failures[0].error, TxError::TooLarge);
                assert_eq!(batch.failures.len(), 1);
            }
            // That says nothing about segmentation: it is still used.
            send(&mut p.a, meta(p.at_a, p.to_b, 10 * most, most), &vec![1; 10 * most]);
            settle(&mut p.a);
            receive(&mut p.b, 10);
            assert_eq!(p.a.stats().tx_gso, 1);
        }
    };
    thread::spawn(test).join().unwrap();
}

/// A slow interface and a small socket buffer: sends wait for room, and all arrive in the end.
#[cfg(target_os = "linux")]
fn full_socket<D: Driver + 'static>(make: fn(&DriverConfig) -> Option<D>) {
    use crate::sys::linux::isolate;
    let test = move || {
        let tbf = ["qdisc", "add", "dev", "lo", "root", "tbf", "rate", "10mbit", "burst", "20kb"];
        if !isolate::private_network(1500)
            || !isolate::run("tc", &[&tbf[..], &["limit", "10mb"]].concat())
        {
            eprintln!("skipped: no private network with a slow interface allowed");
            return;
        }
        let (Some(mut a), Some(mut b)) = (make(&config()), make(&config())) else { return };
        let small = BufferSizes { receive: 4 << 20, send: 10_000 };
        let from = sys::bind_group(SocketAddr::new(V4, 0), 1, small).unwrap().remove(0);
        let to = socket(V4);
        let address = to.local_addr().unwrap();
        let (at_a, _) = (a.add_socket(from).unwrap(), b.add_socket(to).unwrap());
        let (mut batch, mut got) = (Batch::default(), Vec::new());
        let (total, mut sent, mut packets) = (100usize, 0, 0);
        let deadline = Instant::now() + PATIENCE;
        while packets < total * 5 {
            assert!(Instant::now() < deadline, "{packets} packets arrived of {sent} trains");
            while sent < total
                && let Some(mut buf) = a.lend()
            {
                a.bytes(&mut buf)[..5000].fill(sent as u8);
                a.send(buf, meta(at_a, address, 5000, 1000));
                sent += 1;
            }
            a.poll(Some(Duration::from_millis(1)), &mut batch).unwrap();
            assert!(batch.failures.is_empty(), "{:?}", batch.failures);
            b.poll(Some(Duration::ZERO), &mut batch).unwrap();
            take(&mut b, &mut batch, &mut got);
            packets = got.iter().flat_map(Got::packets).count();
        }
        assert!(a.stats().tx_no_buffer > 0, "the sender had to wait");
        assert_eq!(a.stats().tx_packets, 500);
    };
    thread::spawn(test).join().unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn interfaces_limit_packets_and_rate() {
    smaller_interface(mio);
    smaller_interface(uring);
    full_socket(mio);
    full_socket(uring);
}
