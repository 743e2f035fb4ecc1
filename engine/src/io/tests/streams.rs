//! Streams: the same tests for every real driver, and for the drivers crossing each other.

use super::*;
use crate::io::stream::STREAM_BUFFER;
use socket2::{SockRef, Socket};
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

/// What a driver told, received bytes aside.
#[derive(Debug, PartialEq)]
enum Told {
    Accepted { listener: u16, stream: StreamId, remote: SocketAddr, local: Option<IpAddr> },
    Connected(StreamId),
    Sent(StreamId),
    Finished(StreamId),
    Failed(StreamId, ErrorKind),
}

/// A driver and what it told.
struct Side<D> {
    d: D,
    batch: Batch,
    told: Vec<Told>,
    data: HashMap<StreamId, Vec<u8>>,
}

impl<D: Driver> Side<D> {
    fn new(d: D) -> Self {
        Self { d, batch: Batch::default(), told: Vec::new(), data: HashMap::new() }
    }

    fn poll(&mut self, timeout: Duration) {
        self.d.poll(Some(timeout), &mut self.batch).unwrap();
        for event in self.batch.streams.drain(..) {
            self.told.push(match event {
                StreamEvent::Accepted { listener, stream, remote, local } => {
                    Told::Accepted { listener, stream, remote, local }
                }
                StreamEvent::Connected(stream) => Told::Connected(stream),
                StreamEvent::Sent(stream) => Told::Sent(stream),
                StreamEvent::Finished(stream) => Told::Finished(stream),
                StreamEvent::Failed(stream, error) => Told::Failed(stream, error.kind()),
                StreamEvent::Received(bytes) => {
                    let got = self.data.entry(bytes.stream).or_default();
                    got.extend_from_slice(self.d.stream_bytes(&bytes).0);
                    self.d.release_stream(bytes);
                    continue;
                }
            });
        }
        assert!(self.batch.rx.is_empty() && self.batch.failures.is_empty());
    }

    /// Lets pass what may still come.
    fn settle(&mut self) {
        for _ in 0..10 {
            self.poll(Duration::from_millis(5));
        }
    }

    fn listen(&mut self, ip: IpAddr) -> (u16, SocketAddr) {
        let addr = SocketAddr::new(ip, 0);
        let listener =
            Socket::new(socket2::Domain::for_address(addr), socket2::Type::STREAM, None).unwrap();
        listener.bind(&addr.into()).unwrap();
        // Nobody accepts while a test makes hundreds of connections.
        listener.listen(1024).unwrap();
        let listener: TcpListener = listener.into();
        let addr = listener.local_addr().unwrap();
        (self.d.listen_streams(listener).unwrap(), addr)
    }

    fn is_told(&self, what: &Told) -> bool {
        self.told.contains(what)
    }

    fn accepted(&self) -> Vec<StreamId> {
        let accepted = |told: &Told| match told {
            Told::Accepted { stream, .. } => Some(*stream),
            _ => None,
        };
        self.told.iter().filter_map(accepted).collect()
    }

    fn failure(&self, id: StreamId) -> Option<ErrorKind> {
        let failure = |told: &Told| match told {
            Told::Failed(stream, kind) if *stream == id => Some(*kind),
            _ => None,
        };
        self.told.iter().find_map(failure)
    }

    fn got(&self, id: StreamId) -> &[u8] {
        self.data.get(&id).map_or(&[], Vec::as_slice)
    }

    /// Hands over what the stream takes now, from `from` on; gives where it stopped.
    fn send(&mut self, id: StreamId, bytes: &[u8], from: usize) -> usize {
        let mut at = from;
        while at < bytes.len()
            && let Some(buffer) = self.d.stream_buffer(id)
        {
            assert!(buffer.len() >= STREAM_BUFFER);
            let n = buffer.len().min(bytes.len() - at);
            buffer[..n].copy_from_slice(&bytes[at..at + n]);
            at += n;
            if !self.d.send_stream(id, n) {
                break;
            }
        }
        at
    }
}

/// Polls both until `done`.
fn until<A: Driver, B: Driver>(
    a: &mut Side<A>,
    b: &mut Side<B>,
    what: &str,
    mut done: impl FnMut(&mut Side<A>, &mut Side<B>) -> bool,
) {
    let deadline = Instant::now() + 3 * PATIENCE;
    while !done(a, b) {
        assert!(Instant::now() < deadline, "{what}: {:?} and {:?}", a.told, b.told);
        a.poll(Duration::from_millis(1));
        b.poll(Duration::from_millis(1));
    }
}

/// Two drivers with a stream from `a` to `b`.
struct Joined<A, B> {
    a: Side<A>,
    b: Side<B>,
    at_a: StreamId,
    at_b: StreamId,
    listener: u16,
    addr: SocketAddr,
}

fn join<A: Driver, B: Driver>(a: A, b: B, ip: IpAddr) -> Joined<A, B> {
    let (mut a, mut b) = (Side::new(a), Side::new(b));
    let (listener, addr) = b.listen(ip);
    let at_a = a.d.connect_stream(addr).unwrap();
    assert!(a.d.stream_buffer(at_a).is_none(), "nothing is sent before it stands");
    until(&mut a, &mut b, "a connection", |a, b| {
        a.is_told(&Told::Connected(at_a)) && !b.accepted().is_empty()
    });
    let at_b = b.accepted()[0];
    Joined { a, b, at_a, at_b, listener, addr }
}

impl<A: Driver, B: Driver> Joined<A, B> {
    fn until(&mut self, what: &str, done: impl FnMut(&mut Side<A>, &mut Side<B>) -> bool) {
        until(&mut self.a, &mut self.b, what, done);
    }

    /// Sends until nothing more is taken for a while; gives how much that was.
    fn fill(&mut self, bytes: &[u8]) -> usize {
        let (mut at, mut still) = (0, 0);
        while still < 30 {
            let before = at;
            at = self.a.send(self.at_a, bytes, at);
            assert!(at < bytes.len(), "the peer reads nothing, and still all is taken");
            still = if at == before { still + 1 } else { 0 };
            self.a.poll(Duration::from_millis(3));
            self.b.poll(Duration::ZERO);
        }
        at
    }
}

fn accept_and_connect<A: Driver, B: Driver>(a: A, b: B, ip: IpAddr) {
    let mut j = join(a, b, ip);
    let Told::Accepted { listener, remote, local, .. } = &j.b.told[0] else { panic!() };
    assert_eq!((*listener, remote.ip(), *local), (j.listener, ip, Some(ip)));
    let (at_a, at_b) = (j.at_a, j.at_b);
    // Both ways at once; what arrives before anybody reads waits.
    assert_eq!(j.a.send(at_a, b"from a", 0), 6);
    assert_eq!(j.b.send(at_b, b"from b", 0), 6);
    j.a.settle();
    j.b.settle();
    assert!(j.a.data.is_empty() && j.b.data.is_empty(), "nobody reads");
    j.a.d.read_stream(at_a, true);
    j.b.d.read_stream(at_b, true);
    j.until("both messages", |a, b| a.got(at_a) == b"from b" && b.got(at_b) == b"from a");
    // A buffer that is not used goes back.
    assert!(j.a.d.stream_buffer(at_a).is_some());
    assert!(j.a.d.send_stream(at_a, 0));
    assert!(j.a.d.stream_buffer(at_a).is_some());
    j.a.d.close_stream(at_a);
    j.until("the end", |_, b| b.is_told(&Told::Finished(at_b)));
    // Names that are gone do nothing, whoever has the place now.
    j.a.d.close_stream(at_a);
    j.a.d.read_stream(at_a, true);
    assert!(j.a.d.stream_buffer(at_a).is_none());
    let again = j.a.d.connect_stream(j.addr).unwrap();
    assert_ne!(again, at_a);
    j.until("another", |a, _| a.is_told(&Told::Connected(again)));
    j.a.d.abort_stream(at_a);
    j.a.d.shutdown_stream(at_a);
    assert!(j.a.d.stream_buffer(at_a).is_none());
    assert!(j.a.d.stream_buffer(again).is_some(), "the stream in its place lives");
}

fn refused<D: Driver>(d: D) {
    let mut a = Side::new(d);
    for ip in [V4, V6] {
        let nobody = TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap();
        let id = a.d.connect_stream(nobody).unwrap();
        let deadline = Instant::now() + PATIENCE;
        while a.failure(id).is_none() {
            assert!(Instant::now() < deadline);
            a.poll(Duration::from_millis(5));
        }
        assert_eq!(a.failure(id), Some(ErrorKind::ConnectionRefused));
        assert!(a.d.stream_buffer(id).is_none());
        a.d.close_stream(id);
        a.settle();
        assert_eq!(a.told.len(), 1, "told once: {:?}", a.told);
        a.told.clear();
    }
}

/// What a slow reader does not take stays with the sender, who is told to wait.
fn slow_reader<A: Driver, B: Driver>(a: A, b: B, ip: IpAddr) {
    let mut j = join(a, b, ip);
    let (at_a, at_b) = (j.at_a, j.at_b);
    let bytes = pattern(64 << 20, 1);
    let mut at = j.fill(&bytes);
    assert!(j.a.d.stream_buffer(at_a).is_none(), "the buffer is busy");
    assert!(j.b.data.is_empty());
    j.b.d.read_stream(at_b, true);
    j.until("all of it", |a, b| {
        at = a.send(at_a, &bytes, at);
        b.got(at_b).len() >= bytes.len()
    });
    assert!(j.b.got(at_b) == bytes, "in order, each byte once");
    assert!(j.a.is_told(&Told::Sent(at_a)));
    assert_eq!(j.a.failure(at_a), None);
}

/// Reading stops and starts again and again in the middle of a transfer.
fn pause_and_resume<A: Driver, B: Driver>(a: A, b: B) {
    let mut j = join(a, b, V4);
    let (at_a, at_b) = (j.at_a, j.at_b);
    let bytes = pattern(24 << 20, 2);
    let (mut at, mut turn, mut reading) = (0, 0, false);
    j.until("all of it", |a, b| {
        turn += 1;
        if turn % 3 == 0 {
            reading = !reading;
            b.d.read_stream(at_b, reading);
            if turn % 9 == 0 {
                // Twice in a turn: a request that is being taken back is wanted again.
                b.d.read_stream(at_b, !reading);
                b.d.read_stream(at_b, reading);
            }
        }
        at = a.send(at_a, &bytes, at);
        b.got(at_b).len() >= bytes.len()
    });
    assert!(j.b.got(at_b) == bytes, "in order, each byte once");
    // While it rests nothing comes, except what was on its way.
    j.b.d.read_stream(at_b, false);
    j.b.settle();
    assert_eq!(j.a.send(at_a, &bytes[..1000], 0), 1000);
    j.a.settle();
    j.b.settle();
    assert_eq!(j.b.got(at_b).len(), bytes.len());
    j.b.d.read_stream(at_b, true);
    j.until("the rest", |_, b| b.got(at_b).len() == bytes.len() + 1000);
}

/// Each direction ends by itself, after all that was sent in it.
fn half_closed<A: Driver, B: Driver>(a: A, b: B) {
    let mut j = join(a, b, V4);
    let (at_a, at_b) = (j.at_a, j.at_b);
    let bytes = pattern(STREAM_BUFFER, 3);
    assert_eq!(j.a.send(at_a, &bytes, 0), bytes.len());
    j.a.d.shutdown_stream(at_a);
    j.b.d.read_stream(at_b, true);
    j.until("the end of one direction", |_, b| b.is_told(&Told::Finished(at_b)));
    assert!(j.b.got(at_b) == bytes, "all before the end");
    j.a.d.read_stream(at_a, true);
    let back = pattern(5 << 20, 4);
    let mut at = 0;
    j.until("the other direction", |a, b| {
        at = b.send(at_b, &back, at);
        a.got(at_a).len() == back.len()
    });
    assert!(j.a.got(at_a) == back);
    j.b.d.close_stream(at_b);
    j.until("its end", |a, _| a.is_told(&Told::Finished(at_a)));
    let ends = |told: &[Told]| told.iter().filter(|t| matches!(t, Told::Finished(_))).count();
    j.a.settle();
    j.b.settle();
    assert_eq!((ends(&j.a.told), ends(&j.b.told)), (1, 1), "told once");
}

/// What was handed over before the close arrives, however slowly it is read.
fn closed_while_sending<A: Driver, B: Driver>(a: A, b: B) {
    let mut j = join(a, b, V4);
    let (at_a, at_b) = (j.at_a, j.at_b);
    let bytes = pattern(64 << 20, 5);
    let sent = j.fill(&bytes);
    j.a.d.close_stream(at_a);
    assert!(j.a.d.stream_buffer(at_a).is_none());
    j.a.told.clear();
    j.b.d.read_stream(at_b, true);
    j.until("the end", |_, b| b.is_told(&Told::Finished(at_b)));
    assert!(j.b.got(at_b) == &bytes[..sent], "all of it");
    assert!(j.a.told.is_empty(), "nothing more is told: {:?}", j.a.told);
}

/// A stream that is being closed and does not get rid of its bytes can be ended for good.
fn aborted_while_sending<A: Driver, B: Driver>(a: A, b: B) {
    let mut j = join(a, b, V4);
    for closed_before in [false, true] {
        let (at_a, at_b) = (j.at_a, j.at_b);
        let bytes = pattern(64 << 20, 6);
        j.fill(&bytes);
        if closed_before {
            j.a.d.close_stream(at_a);
        }
        j.a.d.abort_stream(at_a);
        j.b.d.read_stream(at_b, true);
        // At once: not only when the driver is polled again.
        let deadline = Instant::now() + 3 * PATIENCE;
        while j.b.failure(at_b) != Some(ErrorKind::ConnectionReset) {
            assert!(Instant::now() < deadline, "no reset: {:?}", j.b.told);
            j.b.poll(Duration::from_millis(1));
        }
        j.b.d.close_stream(at_b);
        // Its place and its buffer are free.
        j.a.settle();
        let (known, addr) = (j.b.accepted().len(), j.addr);
        j.at_a = j.a.d.connect_stream(addr).unwrap();
        let next = j.at_a;
        j.until("the next", |a, b| a.is_told(&Told::Connected(next)) && b.accepted().len() > known);
        j.at_b = *j.b.accepted().last().unwrap();
        assert_eq!(j.at_a.index, at_a.index);
    }
}

/// A listening socket whose queue is full: connections to it hang.
fn deaf() -> (Socket, SocketAddr, Vec<Socket>) {
    let listener = Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener.bind(&SocketAddr::new(V4, 0).into()).unwrap();
    listener.listen(0).unwrap();
    let addr = listener.local_addr().unwrap();
    let fill = || {
        let client = Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        client.set_nonblocking(true).unwrap();
        let _ = client.connect(&addr);
        client
    };
    let clients = (0..8).map(|_| fill()).collect();
    thread::sleep(Duration::from_millis(20));
    (listener, addr.as_socket().unwrap(), clients)
}

fn closed_while_connecting<D: Driver>(d: D) {
    let mut a = Side::new(d);
    let (_listener, addr, _clients) = deaf();
    let ids: Vec<StreamId> = (0..5).map(|_| a.d.connect_stream(addr).unwrap()).collect();
    a.settle();
    assert!(a.told.is_empty(), "it hangs: {:?}", a.told);
    for (i, id) in ids.iter().enumerate() {
        a.d.read_stream(*id, true);
        if i % 2 == 0 { a.d.close_stream(*id) } else { a.d.abort_stream(*id) }
    }
    a.settle();
    assert!(a.told.is_empty(), "nothing is told of it: {:?}", a.told);
    let again = a.d.connect_stream(addr).unwrap();
    assert!(again.index < 5, "the places are free");
}

/// A peer that ends with a reset: while we read, and while we send.
fn reset_by_peer<D: Driver>(d: D) {
    let mut b = Side::new(d);
    let (_, addr) = b.listen(V4);
    for sending in [false, true] {
        let known = b.accepted().len();
        let peer = TcpStream::connect(addr).unwrap();
        let deadline = Instant::now() + PATIENCE;
        while b.accepted().len() == known {
            assert!(Instant::now() < deadline);
            b.poll(Duration::from_millis(5));
        }
        let id = *b.accepted().last().unwrap();
        if sending {
            let bytes = pattern(64 << 20, 7);
            let (mut at, mut still) = (0, 0);
            while still < 30 {
                let before = at;
                at = b.send(id, &bytes, at);
                still = if at == before { still + 1 } else { 0 };
                b.poll(Duration::from_millis(3));
            }
            assert!(b.d.stream_buffer(id).is_none());
        } else {
            b.d.read_stream(id, true);
            b.settle();
        }
        SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
        drop(peer);
        while b.failure(id).is_none() {
            assert!(Instant::now() < deadline);
            b.poll(Duration::from_millis(5));
        }
        let kind = b.failure(id).unwrap();
        assert!(matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{kind:?}");
        assert!(b.d.stream_buffer(id).is_none());
        assert!(b.d.send_stream(id, 0), "nothing to wait for");
        b.settle();
        let failures = b.told.iter().filter(|t| matches!(t, Told::Failed(..))).count();
        assert_eq!(failures, 1 + usize::from(sending), "told once");
        b.d.close_stream(id);
    }
}

/// Five hundred streams with few receive buffers: each carries its own bytes both ways.
fn many_streams<A: Driver, B: Driver>(a: A, b: B) {
    const COUNT: usize = 500;
    const LEN: usize = 100_000;
    let (mut a, mut b) = (Side::new(a), Side::new(b));
    let (_, addr) = b.listen(V4);
    let ids: Vec<StreamId> = (0..COUNT).map(|_| a.d.connect_stream(addr).unwrap()).collect();
    until(&mut a, &mut b, "all connections", |a, b| {
        let made = a.told.iter().filter(|t| matches!(t, Told::Connected(_))).count();
        made == COUNT && b.accepted().len() == COUNT
    });
    let peers = b.accepted();
    for (mine, theirs) in ids.iter().zip(&peers) {
        a.d.read_stream(*mine, true);
        b.d.read_stream(*theirs, true);
    }
    let texts: Vec<Vec<u8>> = (0..COUNT).map(|i| pattern(LEN, i)).collect();
    let (mut to_b, mut to_a) = (vec![0; COUNT], vec![0; COUNT]);
    until(&mut a, &mut b, "all bytes", |a, b| {
        let mut done = true;
        for i in 0..COUNT {
            to_b[i] = a.send(ids[i], &texts[i], to_b[i]);
            to_a[i] = b.send(peers[i], &texts[i], to_a[i]);
            done &= a.got(ids[i]).len() == LEN && b.got(peers[i]).len() == LEN;
        }
        done
    });
    // Which is whose partner only the ports tell; each has exactly one of the texts.
    let whole = |side: &HashMap<StreamId, Vec<u8>>| {
        let mut got: Vec<Vec<u8>> = side.values().cloned().collect();
        got.sort();
        got
    };
    let mut sorted = texts.clone();
    sorted.sort();
    assert!(whole(&a.data) == sorted && whole(&b.data) == sorted);
    for id in &ids {
        a.d.close_stream(*id);
    }
    until(&mut a, &mut b, "all ends", |_, b| {
        b.told.iter().filter(|t| matches!(t, Told::Finished(_))).count() == COUNT
    });
    for id in &peers {
        b.d.close_stream(*id);
    }
    a.settle();
    b.settle();
    // All places and all buffers are free again.
    let again = a.d.connect_stream(addr).unwrap();
    assert!((again.index as usize) < COUNT);
    until(&mut a, &mut b, "one more", |a, b| {
        a.is_told(&Told::Connected(again)) && b.accepted().len() == COUNT + 1
    });
}

fn listener_closes<A: Driver, B: Driver>(a: A, b: B) {
    let mut j = join(a, b, V4);
    let (at_a, at_b, listener) = (j.at_a, j.at_b, j.listener);
    j.b.d.unlisten_streams(listener).unwrap();
    assert!(j.b.d.unlisten_streams(listener).is_err());
    assert!(j.b.d.unlisten_streams(999).is_err());
    j.b.settle();
    let late = j.a.d.connect_stream(j.addr).unwrap();
    j.until("a refusal", |a, _| a.failure(late) == Some(ErrorKind::ConnectionRefused));
    // Who is there stays.
    j.b.d.read_stream(at_b, true);
    j.a.send(at_a, b"still here", 0);
    j.until("bytes", |_, b| b.got(at_b) == b"still here");
    // The address and the number are free.
    let listener = TcpListener::bind(j.addr);
    if let Ok(listener) = listener {
        let number = j.b.d.listen_streams(listener).unwrap();
        let id = j.a.d.connect_stream(j.addr).unwrap();
        j.until("a connection", |a, _| a.is_told(&Told::Connected(id)));
        j.b.d.unlisten_streams(number).unwrap();
    }
}

/// Everything is under way when the driver goes: it goes at once, and its peers see the end.
fn dropped_in_the_middle<A: Driver, B: Driver>(a: A, b: B) {
    let mut j = join(a, b, V4);
    let (_deaf, nowhere, _clients) = deaf();
    let bytes = pattern(64 << 20, 8);
    j.fill(&bytes);
    let (at_a, at_b) = (j.at_a, j.at_b);
    // A listener, a receive, a connect, one stream that closes while it sends, and one that sends.
    let (_, addr) = j.a.listen(V4);
    let waiting = TcpStream::connect(addr).unwrap();
    j.a.d.read_stream(at_a, true);
    j.a.d.connect_stream(nowhere).unwrap();
    let known = j.b.accepted().len();
    let other = j.a.d.connect_stream(j.addr).unwrap();
    j.until("another", |a, b| a.is_told(&Told::Connected(other)) && b.accepted().len() > known);
    j.a.d.read_stream(other, true);
    let theirs = *j.b.accepted().last().unwrap();
    let mut at = 0;
    for _ in 0..30 {
        at = j.a.send(other, &bytes, at);
        j.a.poll(Duration::from_millis(2));
    }
    j.a.d.close_stream(other);
    let start = Instant::now();
    let Joined { a, mut b, .. } = j;
    drop(a);
    assert!(start.elapsed() < Duration::from_secs(1), "it took {:?}", start.elapsed());
    b.d.read_stream(at_b, true);
    b.d.read_stream(theirs, true);
    let over = |b: &Side<B>, id| b.is_told(&Told::Finished(id)) || b.failure(id).is_some();
    let deadline = Instant::now() + PATIENCE;
    while !over(&b, at_b) || !over(&b, theirs) {
        assert!(Instant::now() < deadline, "{:?}", b.told);
        b.poll(Duration::from_millis(5));
    }
    let mut rest = Vec::new();
    let _ = (&waiting).write(b"x");
    let _ = (&waiting).read_to_end(&mut rest);
    drop(waiting);
    assert!(TcpStream::connect(addr).is_err(), "nobody listens");
}

/// Without descriptors accepting rests, wakes nobody all the time, and goes on when there are some.
#[cfg(target_os = "linux")]
fn out_of_descriptors<D: Driver>(d: D) {
    use crate::sys::linux::isolate;
    let mut b = Side::new(d);
    let (_, addr) = b.listen(V4);
    let peers: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(addr).unwrap()).collect();
    let before = isolate::limit_descriptors(5);
    let deadline = Instant::now() + PATIENCE;
    while b.d.stats().accepts_paused == 0 {
        assert!(Instant::now() < deadline, "{} were accepted", b.accepted().len());
        b.poll(Duration::from_millis(10));
    }
    assert!(b.accepted().len() < 15, "descriptors were missing");
    let (calls, paused) = (b.d.stats().syscalls, b.d.stats().accepts_paused);
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(500) {
        b.poll(Duration::from_secs(1));
    }
    assert!(b.d.stats().accepts_paused - paused <= 10, "{:?}", b.d.stats());
    assert!(b.d.stats().syscalls - calls < 100, "{:?}", b.d.stats());
    // Those who were taken are served meanwhile.
    let id = b.accepted()[0];
    b.d.read_stream(id, true);
    (&peers[0]).write_all(b"hello").unwrap();
    while b.got(id).is_empty() {
        assert!(Instant::now() < deadline);
        b.poll(Duration::from_millis(10));
    }
    isolate::restore_descriptors(before);
    while b.accepted().len() < peers.len() {
        assert!(Instant::now() < deadline, "{} were accepted", b.accepted().len());
        b.poll(Duration::from_millis(200));
    }
}

/// Few buffers, so that a lost one shows.
fn scarce() -> DriverConfig {
    DriverConfig { rx_buffers: 16, rx_posted: 8, lease_reserve: 8, ..config() }
}

macro_rules! suite {
    ($name:ident, $a:expr, $b:expr) => {
        mod $name {
            use super::*;

            macro_rules! both {
                ($a2:ident, $b2:ident, $body:expr) => {
                    let (Some($a2), Some($b2)) = ($a(&scarce()), $b(&scarce())) else { return };
                    $body
                };
            }

            #[test]
            fn accept_and_connect() {
                both!(a, b, super::accept_and_connect(a, b, V4));
                both!(a, b, super::accept_and_connect(a, b, V6));
            }
            #[test]
            fn slow_reader() {
                both!(a, b, super::slow_reader(a, b, V4));
                both!(a, b, super::slow_reader(a, b, V6));
            }
            #[test]
            fn pause_and_resume() {
                both!(a, b, super::pause_and_resume(a, b));
            }
            #[test]
            fn half_closed() {
                both!(a, b, super::half_closed(a, b));
            }
            #[test]
            fn closed_while_sending() {
                both!(a, b, super::closed_while_sending(a, b));
            }
            #[test]
            fn aborted_while_sending() {
                both!(a, b, super::aborted_while_sending(a, b));
            }
            #[test]
            fn many_streams() {
                both!(a, b, super::many_streams(a, b));
            }
            #[test]
            fn listener_closes() {
                both!(a, b, super::listener_closes(a, b));
            }
            #[test]
            fn dropped_in_the_middle() {
                both!(a, b, super::dropped_in_the_middle(a, b));
            }
        }
    };
}

macro_rules! alone {
    ($name:ident, $make:expr) => {
        mod $name {
            use super::*;

            #[test]
            fn refused() {
                let Some(d) = $make(&scarce()) else { return };
                super::refused(d);
            }
            #[test]
            fn closed_while_connecting() {
                let Some(d) = $make(&scarce()) else { return };
                super::closed_while_connecting(d);
            }
            #[test]
            fn reset_by_peer() {
                let Some(d) = $make(&scarce()) else { return };
                super::reset_by_peer(d);
            }
            #[test]
            #[cfg(target_os = "linux")]
            fn out_of_descriptors() {
                let name = concat!(module_path!(), "::out_of_descriptors");
                if crate::sys::linux::isolate::in_own_process(name) {
                    let Some(d) = $make(&scarce()) else { return };
                    super::out_of_descriptors(d);
                }
            }
        }
    };
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
suite!(plain_uring_to_unbound_uring, plain_uring, unbound_uring);
#[cfg(target_os = "linux")]
alone!(plain_uring_alone, plain_uring);
