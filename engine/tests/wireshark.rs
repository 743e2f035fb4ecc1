//! The capture file that an engine writes, read by a parser of the test's own and by tshark with the
//! dissector in `tools/wireshark`; and datagrams as they are on the wire, whole and damaged.
//!
//! Without tshark that part is skipped, unless `TRUNKLINE_WIRESHARK_REQUIRED` is set.

mod common;

use common::{connect, connection, drivers, identity, listen, loopback, pattern, wait_until};
use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use trunkline::{
    CaptureConfig, ChannelKind, ChannelOptions, ConnectConfig, ConnectLink, DriverChoice,
    EngineConfig, Event, Links, ListenConfig, QueuedEngine, Received,
};

/// A file of this test, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let name = format!("trunkline-{name}-{}.pcapng", std::process::id());
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

// ---- a parser of pcapng of our own

#[derive(Debug, Default)]
struct File {
    link_types: Vec<u16>,
    packets: Vec<Packet>,
    secrets: String,
    /// Interface → received, dropped.
    statistics: BTreeMap<u32, (u64, u64)>,
}

#[derive(Debug)]
struct Packet {
    interface: u32,
    nanos: u64,
    bytes: Vec<u8>,
    flags: u32,
    dropped: u64,
}

fn le16(b: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(b[at..at + 2].try_into().unwrap())
}

fn le32(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(b[at..at + 4].try_into().unwrap())
}

fn le64(b: &[u8]) -> u64 {
    u64::from_le_bytes(b.try_into().unwrap())
}

fn options(mut b: &[u8]) -> BTreeMap<u16, Vec<u8>> {
    let mut out = BTreeMap::new();
    while b.len() >= 4 {
        let (code, len) = (le16(b, 0), usize::from(le16(b, 2)));
        if code == 0 {
            assert_eq!((len, b.len()), (0, 4), "nothing behind the end of the options");
            return out;
        }
        assert!(out.insert(code, b[4..4 + len].to_vec()).is_none());
        b = &b[4 + len.next_multiple_of(4)..];
    }
    panic!("options without an end");
}

fn parse(bytes: &[u8]) -> File {
    let mut file = File::default();
    let mut at = 0;
    while at < bytes.len() {
        let (kind, len) = (le32(bytes, at), le32(bytes, at + 4) as usize);
        assert_eq!(len % 4, 0);
        assert_eq!(le32(bytes, at + len - 4) as usize, len, "both lengths of a block");
        let body = &bytes[at + 8..at + len - 4];
        assert_eq!(kind == 0x0A0D_0D0A, at == 0, "one section");
        match kind {
            0x0A0D_0D0A => {
                assert_eq!(le32(body, 0), 0x1A2B_3C4D);
                let options = options(&body[16..]);
                assert!(String::from_utf8_lossy(&options[&1]).contains("secret"));
                assert!(options[&4].starts_with(b"trunkline "));
            }
            1 => {
                assert_eq!(options(&body[8..])[&9], [9], "nanoseconds");
                file.link_types.push(le16(body, 0));
            }
            5 => {
                let options = options(&body[12..]);
                file.statistics.insert(le32(body, 0), (le64(&options[&4]), le64(&options[&5])));
            }
            6 => {
                let len = le32(body, 12) as usize;
                assert_eq!(len, le32(body, 16) as usize, "nothing is cut");
                let options = options(&body[20 + len.next_multiple_of(4)..]);
                file.packets.push(Packet {
                    interface: le32(body, 0),
                    nanos: u64::from(le32(body, 4)) << 32 | u64::from(le32(body, 8)),
                    bytes: body[20..20 + len].to_vec(),
                    flags: le32(&options[&2], 0),
                    dropped: options.get(&4).map_or(0, |v| le64(v)),
                });
            }
            10 => {
                assert_eq!(le32(body, 0), 0x544C_534B);
                let len = le32(body, 4) as usize;
                file.secrets.push_str(std::str::from_utf8(&body[8..8 + len]).unwrap());
            }
            other => panic!("block of type {other}"),
        }
        at += len;
    }
    file
}

// ---- a pcapng writer of our own

/// A file of UDP datagrams from port 1000 to port 2000 or, marked, back.
fn datagram_file(datagrams: &[(bool, Vec<u8>)]) -> Vec<u8> {
    fn block(kind: u32, body: &[u8]) -> Vec<u8> {
        let len = (body.len().next_multiple_of(4) + 12) as u32;
        let mut out = [kind.to_le_bytes(), len.to_le_bytes()].concat();
        out.extend_from_slice(body);
        out.resize(len as usize - 4, 0);
        out.extend_from_slice(&len.to_le_bytes());
        out
    }
    let mut head = 0x1A2B_3C4Du32.to_le_bytes().to_vec();
    head.extend_from_slice(&[1, 0, 0, 0]);
    head.extend_from_slice(&[0xFF; 8]);
    let mut out = block(0x0A0D_0D0A, &head);
    out.extend(block(1, &[101, 0, 0, 0, 0, 0, 0, 0]));
    for (back, data) in datagrams {
        let len = (28 + data.len()) as u16;
        let [a, b] = len.to_be_bytes();
        let mut packet = vec![0x45, 0, a, b, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 1];
        let ports: [u16; 2] = if *back { [2000, 1000] } else { [1000, 2000] };
        for value in [ports[0], ports[1], len - 20, 0] {
            packet.extend_from_slice(&value.to_be_bytes());
        }
        packet.extend_from_slice(data);
        let mut body = vec![0; 12];
        body.extend_from_slice(&(packet.len() as u32).to_le_bytes());
        body.extend_from_slice(&(packet.len() as u32).to_le_bytes());
        body.extend_from_slice(&packet);
        out.extend(block(6, &body));
    }
    out
}

// ---- tshark

fn has_tshark() -> bool {
    if Command::new("tshark").arg("--version").output().is_ok() {
        return true;
    }
    assert!(
        std::env::var_os("TRUNKLINE_WIRESHARK_REQUIRED").is_none(),
        "tshark is required here and missing"
    );
    eprintln!("skipped: no tshark");
    false
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/wireshark/trunkline.lua")
}

/// The values of these fields, one line for each packet that passes the filter. Values of one
/// packet are separated by commas.
fn tshark(file: &Path, filter: &str, fields: &[&str]) -> Vec<Vec<String>> {
    let mut command = Command::new("tshark");
    command.arg("-X").arg(format!("lua_script:{}", script().display())).arg("-r").arg(file);
    command.args(["-T", "fields", "-E", "occurrence=a", "-E", "aggregator=,"]);
    if !filter.is_empty() {
        command.args(["-Y", filter]);
    }
    for field in fields {
        command.args(["-e", field]);
    }
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !errors.contains("Lua"), "{errors}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|l| l.split('\t').map(str::to_owned).collect()).collect()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

// ---- what is captured

/// What goes over the channel `stream`.
fn stream_bytes() -> Vec<u8> {
    pattern(5000, 1)
}

/// What goes over the channel `news`.
fn news() -> Vec<Vec<u8>> {
    (2..5).map(|i| pattern(100 * i, i as u64)).collect()
}

/// Opens a channel of bytes and one of datagrams, sends on both, and ends everything once all of it
/// has come.
fn converse(client: QueuedEngine, host: QueuedEngine, connect: &ConnectConfig, stream: &[u8]) {
    let conn = client.connect(connect, None).unwrap();
    let open = |name, kind| {
        let options = ChannelOptions { kind, ..ChannelOptions::default() };
        client.open_channel(conn, name, &options).unwrap()
    };
    let bytes = open("stream", ChannelKind::Bytes);
    let news_channel = open("news", ChannelKind::Datagrams);
    let (mut got, mut messages, mut sent) = (Vec::new(), Vec::new(), false);
    let mut ready = 0;
    let mut out = Vec::new();
    wait_until("everything to arrive", || {
        host.poll_group().recv_many(&mut out, 100, Some(Duration::from_millis(5)));
        for received in out.drain(..) {
            match received {
                Received::Event(Event::Incoming { conn, .. }) => host.accept(conn).unwrap(),
                Received::Event(Event::ChannelRequest { channel, options, .. }) => {
                    host.accept_channel(channel, &options).unwrap();
                }
                Received::Event(Event::Data { data, .. }) => got.extend_from_slice(&data),
                Received::Message(message) => messages.push(message.data.to_vec()),
                Received::Event(_) => {}
            }
        }
        client.poll_group().recv_many(&mut out, 100, Some(Duration::ZERO));
        let is_ready = |r: &Received| matches!(r, Received::Event(Event::ChannelReady { .. }));
        ready += out.drain(..).filter(is_ready).count();
        if ready == 2 && !sent {
            sent = true;
            client.send(bytes, stream).unwrap();
            for message in news() {
                client.send(news_channel, &message).unwrap();
            }
        }
        got.len() == stream.len() && messages.len() == news().len()
    });
    assert!(got == stream && messages == news());
    client.finish(bytes).unwrap();
    client.shutdown(Duration::from_secs(2)).unwrap();
    host.shutdown(Duration::from_secs(2)).unwrap();
}

fn engine(driver: DriverChoice, capture: Option<CaptureConfig>) -> QueuedEngine {
    let config =
        EngineConfig { driver, connection: connection(), capture, ..EngineConfig::default() };
    QueuedEngine::start(config).unwrap()
}

/// Two engines talk over this link; both write what they see.
fn captured(link: ConnectLink, driver: DriverChoice, client_file: &Path, host_file: &Path) {
    let identity = identity();
    let host = engine(driver, Some(CaptureConfig::new(host_file)));
    let listener = host.listen(&ListenConfig { links: Links::BOTH, ..listen(&identity) }).unwrap();
    let client = engine(driver, Some(CaptureConfig::new(client_file)));
    let connect = ConnectConfig { link, ..connect(listener.local_addr, &identity) };
    converse(client, host, &connect, &stream_bytes());
}

/// Which bytes of what was sent a dissected file shows.
struct Shown {
    whole: Vec<Vec<u8>>,
    seen: Vec<Vec<bool>>,
}

impl Shown {
    fn new() -> Self {
        let mut whole = news();
        whole.push(stream_bytes());
        let seen = whole.iter().map(|w| vec![false; w.len()]).collect();
        Self { whole, seen }
    }

    /// A piece in hexadecimal digits, as an analyser shows it.
    fn piece(&mut self, digits: &str) {
        let found = self.whole.iter().zip(&mut self.seen).find_map(|(whole, seen)| {
            let at = hex(whole).find(digits).filter(|at| at % 2 == 0)? / 2;
            Some(&mut seen[at..at + digits.len() / 2])
        });
        found.unwrap_or_else(|| panic!("{digits} was not sent")).fill(true);
    }

    fn is_complete(&self) -> bool {
        self.seen.iter().flatten().all(|seen| *seen)
    }
}

/// Checks the blocks of a file.
fn check_blocks(path: &Path, interface: u32) {
    let file = parse(&std::fs::read(path).unwrap());
    assert_eq!(file.link_types, [252, 101]);
    assert!(file.packets.iter().all(|p| p.interface == interface && p.dropped == 0));
    for direction in [1, 2] {
        assert!(file.packets.iter().any(|p| p.flags == direction));
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let (first, last) = (file.packets[0].nanos, file.packets[file.packets.len() - 1].nanos);
    assert!(first <= last && u128::from(last) <= now.as_nanos());
    assert!(
        u128::from(last - first) < 60_000_000_000
            && now.as_nanos() - u128::from(last) < 60_000_000_000
    );
    let count = file.packets.len() as u64;
    assert_eq!(file.statistics[&interface], (count, 0));
    assert_eq!(file.statistics[&(1 - interface)], (0, 0));
    for label in ["CLIENT_HANDSHAKE_TRAFFIC_SECRET", "CLIENT_TRAFFIC_SECRET_0"] {
        assert!(file.secrets.lines().any(|l| l.starts_with(label)), "{}", file.secrets);
    }
}

/// Whether tshark reads a file; not all, as each run of it takes a while.
fn is_dissected(driver: DriverChoice, of_client: bool) -> bool {
    has_tshark() && of_client == (driver == DriverChoice::Mio)
}

/// Checks what tshark shows of a file with the whole conversation.
fn check_dissection(path: &Path) {
    let problems = tshark(path, "trunkline.malformed || _ws.lua.error", &["_ws.expert.message"]);
    assert!(problems.is_empty(), "{problems:?}");
    let mut shown = Shown::new();
    for line in tshark(path, "trunkline.data", &["trunkline.data"]) {
        line[0].split(',').for_each(|digits| shown.piece(digits));
    }
    assert!(shown.is_complete());
    let names = tshark(path, "trunkline.control.name", &["trunkline.control.name"]).concat();
    assert!(names.join(",").contains("stream") && names.join(",").contains("news"), "{names:?}");
    // Channels of the client count from 1; the datagrams have sizes of their own.
    for filter in [
        "trunkline.channel == 1 && trunkline.frame.length > 0",
        "trunkline.channel == 2 && trunkline.frame.fragments == 1",
        "trunkline.channel == 1 && trunkline.frame.eof == 1",
        "trunkline.kind == 2",
    ] {
        assert!(!tshark(path, filter, &["frame.number"]).is_empty(), "{filter}");
    }
}

#[test]
fn packets_of_datagram_links_are_captured_in_the_clear() {
    for driver in drivers() {
        let (client, host) = (Scratch::new("dgram-client"), Scratch::new("dgram-host"));
        captured(ConnectLink::Datagram, driver, &client.0, &host.0);
        for path in [&client.0, &host.0] {
            check_blocks(path, 0);
            if is_dissected(driver, path == &client.0) {
                check_dissection(path);
                let sizes = "trunkline.channel == 2 && trunkline.frame.length == 200";
                assert!(!tshark(path, sizes, &["frame.number"]).is_empty());
                let types = tshark(path, "", &["trunkline.packet.type", "udp.srcport"]);
                for kind in ["0", "2", "3", "16"] {
                    assert!(types.iter().any(|t| t[0] == kind), "no packet of type {kind}");
                }
                let info = tshark(path, "", &["_ws.col.Info"]).concat().join("\n");
                for name in ["ACK", "CRYPTO", "CLOSE"] {
                    assert!(info.contains(name), "{name} is missing:\n{info}");
                }
            }
        }
    }
}

#[test]
fn stream_links_are_opened_with_the_secrets_in_the_same_file() {
    for driver in drivers() {
        let (client, host) = (Scratch::new("tls-client"), Scratch::new("tls-host"));
        captured(ConnectLink::Stream, driver, &client.0, &host.0);
        for path in [&client.0, &host.0] {
            check_blocks(path, 1);
            if is_dissected(driver, path == &client.0) {
                check_dissection(path);
                let sizes = "trunkline.channel == 2 && trunkline.frame.length == 206";
                assert!(!tshark(path, sizes, &["frame.number"]).is_empty());
                let said = tshark(path, "trunkline.control", &["trunkline.control"]);
                let said = said.concat().join(",");
                for name in ["Parameters", "AuthenticationRequest", "Consumed", "Close"] {
                    assert!(said.contains(name), "{name} is missing: {said}");
                }
            }
        }
    }
}

/// What passes between two engines over UDP, in order: whether the host sent it, and its bytes.
fn on_the_wire() -> Vec<(bool, Vec<u8>)> {
    let identity = identity();
    let host = engine(DriverChoice::Mio, None);
    let target = host.listen(&listen(&identity)).unwrap().local_addr;
    let client = engine(DriverChoice::Mio, None);
    let (front, back) =
        (UdpSocket::bind(loopback()).unwrap(), UdpSocket::bind(loopback()).unwrap());
    let addr = front.local_addr().unwrap();
    let passed = Arc::new(Mutex::new(Vec::new()));
    let over = Arc::new(AtomicBool::new(false));
    let run = {
        let (passed, over) = (Arc::clone(&passed), Arc::clone(&over));
        move || {
            let mut buffer = vec![0; 65_536];
            let mut client = None;
            for socket in [&front, &back] {
                socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
            }
            while !over.load(Ordering::Relaxed) {
                if let Ok((len, from)) = front.recv_from(&mut buffer) {
                    client = Some(from);
                    passed.lock().unwrap().push((false, buffer[..len].to_vec()));
                    back.send_to(&buffer[..len], target).unwrap();
                }
                if let (Ok((len, _)), Some(client)) = (back.recv_from(&mut buffer), client) {
                    passed.lock().unwrap().push((true, buffer[..len].to_vec()));
                    front.send_to(&buffer[..len], client).unwrap();
                }
            }
        }
    };
    let proxy = std::thread::spawn(run);
    converse(client, host, &connect(addr, &identity), &stream_bytes());
    over.store(true, Ordering::Relaxed);
    proxy.join().unwrap();
    std::mem::take(&mut *passed.lock().unwrap())
}

/// Copies of these bytes that are cut or have other bytes in some places.
fn damaged(bytes: &[u8], seed: usize) -> Vec<Vec<u8>> {
    let noise = pattern(64, seed as u64 + 1);
    let mut out: Vec<Vec<u8>> =
        noise[..6].iter().map(|n| bytes[..usize::from(*n) % (bytes.len() + 1)].to_vec()).collect();
    for chunk in noise[6..54].chunks(8) {
        let mut copy = bytes.to_vec();
        // Near the start, where the headers are.
        for pair in chunk.chunks(2) {
            let at = usize::from(pair[0]) % copy.len().clamp(1, 96);
            if let Some(byte) = copy.get_mut(at) {
                *byte = pair[1];
            }
        }
        out.push(copy);
    }
    out
}

/// Everything tshark says of a damaged file is that it is malformed; the dissector itself is sound.
fn check_damaged(path: &Path) {
    let said = tshark(path, "trunkline.malformed || _ws.lua.error", &["_ws.expert.message"]);
    let said = said.concat().join("\n");
    assert!(said.contains("Malformed: "), "{said}");
    assert!(!said.contains(".lua:") && !said.contains("Lua Error"), "{said}");
}

#[test]
fn headers_of_sealed_packets_are_shown_and_damaged_ones_do_no_harm() {
    if !has_tshark() {
        return;
    }
    let passed = on_the_wire();
    let file = Scratch::new("wire");
    std::fs::write(&file.0, datagram_file(&passed)).unwrap();
    let problems = tshark(&file.0, "trunkline.malformed || _ws.lua.error", &["frame.number"]);
    assert!(problems.is_empty(), "{problems:?}");
    let shown = tshark(&file.0, "", &["trunkline.packet.type", "trunkline.dcid"]);
    assert_eq!(shown.len(), passed.len());
    assert_eq!(shown[0][0], "0", "the first is a ConnectionRequest");
    for (line, (_, bytes)) in shown.iter().zip(&passed) {
        let (short, id) = (bytes[0] < 0x80, if bytes[0] < 0x80 { 1..9 } else { 6..14 });
        assert!(line[1].starts_with(&hex(&bytes[id])), "{line:?}");
        assert_eq!(line[0] == "16", short, "{line:?}");
    }
    let sealed = tshark(&file.0, "trunkline.packet.note contains \"Sealed\"", &["frame.number"]);
    assert_eq!(sealed.len(), passed.len());
    // The first stays whole, so that the rest belongs to a known conversation.
    let mut broken = passed[..1].to_vec();
    for (i, (back, bytes)) in passed.iter().enumerate().take(40) {
        broken.extend(damaged(bytes, i).into_iter().map(|copy| (*back, copy)));
    }
    std::fs::write(&file.0, datagram_file(&broken)).unwrap();
    check_damaged(&file.0);
}

#[test]
fn damaged_captures_do_no_harm() {
    if !has_tshark() {
        return;
    }
    let (client, host) = (Scratch::new("broken-client"), Scratch::new("broken-host"));
    captured(ConnectLink::Datagram, DriverChoice::Mio, &client.0, &host.0);
    let bytes = std::fs::read(&client.0).unwrap();
    let file = parse(&bytes);
    // All but the packets, which come once more, damaged behind the tags of the exported PDU.
    let mut out = Vec::new();
    let mut at = 0;
    while le32(&bytes, at) != 6 {
        let len = le32(&bytes, at + 4) as usize;
        out.extend_from_slice(&bytes[at..at + len]);
        at += len;
    }
    for (i, packet) in file.packets.iter().enumerate().take(60) {
        let tags = packet.bytes.windows(4).position(|w| w == [0, 0, 0, 0]).unwrap() + 4;
        for copy in damaged(&packet.bytes[tags..], i) {
            let data = [&packet.bytes[..tags], &copy[..]].concat();
            let padded = data.len().next_multiple_of(4);
            let len = (32 + padded) as u32;
            for word in [6, len, 0, 0, 0, data.len() as u32, data.len() as u32] {
                out.extend_from_slice(&word.to_le_bytes());
            }
            out.extend_from_slice(&data);
            out.resize(out.len() + padded - data.len(), 0);
            out.extend_from_slice(&len.to_le_bytes());
        }
    }
    std::fs::write(&client.0, out).unwrap();
    check_damaged(&client.0);
}

#[test]
fn a_capture_has_a_limit_and_says_what_is_left_out() {
    let file = Scratch::new("limit");
    let small = CaptureConfig { max_bytes: 1000, ..CaptureConfig::new(&file.0) };
    let config = EngineConfig { capture: Some(small.clone()), ..EngineConfig::default() };
    let error = QueuedEngine::start(config).unwrap_err().to_string();
    assert!(error.contains("capture.max_bytes"), "{error}");
    let identity = identity();
    let host = engine(DriverChoice::Mio, None);
    let target = host.listen(&listen(&identity)).unwrap().local_addr;
    let client = engine(DriverChoice::Mio, Some(CaptureConfig { max_bytes: 256 << 10, ..small }));
    converse(client, host, &connect(target, &identity), &pattern(1_000_000, 7));
    let bytes = std::fs::read(&file.0).unwrap();
    assert!((100 << 10..=256 << 10).contains(&bytes.len()), "{} bytes", bytes.len());
    let parsed = parse(&bytes);
    let (seen, dropped) = parsed.statistics[&0];
    assert!(dropped > 0);
    assert_eq!(seen, dropped + parsed.packets.len() as u64);
    if has_tshark() {
        let frames = tshark(&file.0, "", &["frame.number"]);
        assert_eq!(frames.len(), parsed.packets.len());
    }
}

#[test]
fn a_capture_that_cannot_be_written_is_an_error_at_the_start() {
    let dir = std::env::temp_dir();
    let config =
        EngineConfig { capture: Some(CaptureConfig::new(&dir)), ..EngineConfig::default() };
    let error = QueuedEngine::start(config).unwrap_err().to_string();
    assert!(error.contains("capture") && error.contains("regular file"), "{error}");
}
