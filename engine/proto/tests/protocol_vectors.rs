//! `docs/protocol.md` is checked against the code: every block marked `vector` in both directions,
//! and its tables of limits, frame types, transport parameters and reasons.

use ring::aead;
use rustls::Side;
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::quic::{Keys, Version};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::str::FromStr;
use trunkline_proto::config::ChannelKind;
use trunkline_proto::error::Reason;
use trunkline_proto::ids::ConnectionId;
use trunkline_proto::limits::{self, SHORT_HEADER_LEN, TAG_LEN, VERSION};
use trunkline_proto::time::Duration;
use trunkline_proto::wire::ack::{EcnCounts, write_ack};
use trunkline_proto::wire::codec::{Reader, Writer};
use trunkline_proto::wire::control::{
    self, Activity, ChannelRequestMessage, ControlMessage, RequestOptions,
};
use trunkline_proto::wire::frame::{
    DatagramHeader, Frames, write_bare_header, write_datagram_header, write_stream_header,
};
use trunkline_proto::wire::link_message::LinkMessage;
use trunkline_proto::wire::packet::{
    Level, LongHeader, LongPrefix, MessageType, Retry, ShortHeader, VersionList, expand_pn,
};
use trunkline_proto::wire::params::{self, TransportParams};
use trunkline_proto::wire::transport::{TransportFrame, kind};

const DOCUMENT: &str = include_str!("../../../docs/protocol.md");

type Checked = Result<(), String>;

/// One block of the document.
struct Vector {
    kind: &'static str,
    line: usize,
    fields: Vec<(&'static str, &'static str)>,
    used: RefCell<BTreeSet<&'static str>>,
}

impl Vector {
    fn get(&self, key: &'static str) -> Option<&'static str> {
        self.used.borrow_mut().insert(key);
        self.fields.iter().find(|(k, _)| *k == key).map(|(_, v)| *v)
    }

    fn text(&self, key: &'static str) -> Result<&'static str, String> {
        let value = self.get(key).ok_or(format!("{key} is missing"))?;
        let inner = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
        inner.ok_or(format!("{key} is not in quotes"))
    }

    fn bytes(&self, key: &'static str) -> Result<Vec<u8>, String> {
        unhex(self.get(key).ok_or(format!("{key} is missing"))?)
    }

    fn array<const N: usize>(&self, key: &'static str) -> Result<[u8; N], String> {
        self.bytes(key)?.try_into().map_err(|_| format!("{key} has not {N} bytes"))
    }

    fn id(&self, key: &'static str) -> Result<ConnectionId, String> {
        self.array(key).map(ConnectionId)
    }

    fn maybe<T: FromStr>(&self, key: &'static str) -> Result<Option<T>, String> {
        self.get(key).map(|v| v.parse().map_err(|_| format!("{key} is out of range"))).transpose()
    }

    fn num<T: FromStr>(&self, key: &'static str) -> Result<T, String> {
        self.maybe(key)?.ok_or(format!("{key} is missing"))
    }

    fn flag(&self, key: &'static str) -> Result<bool, String> {
        Ok(self.num::<u8>(key)? == 1)
    }

    /// What the code makes of the fields is what the document says.
    fn is_hex(&self, encoded: &[u8]) -> Checked {
        same("hex", hex(encoded), hex(&self.bytes("hex").unwrap_or_default()))
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, code: T, document: T) -> Checked {
    if code == document {
        Ok(())
    } else {
        Err(format!("{what}: the code says {code:?}, the document {document:?}"))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut all, b| {
        let _ = write!(all, "{b:02x}");
        all
    })
}

fn unhex(text: &str) -> Result<Vec<u8>, String> {
    if text == "-" {
        return Ok(Vec::new());
    }
    let digits: String = text.split_whitespace().collect();
    let byte = |i| digits.get(i..i + 2).and_then(|d| u8::from_str_radix(d, 16).ok());
    (0..digits.len()).step_by(2).map(|i| byte(i).ok_or(format!("no hex: {text}"))).collect()
}

fn vectors() -> Vec<Vector> {
    let mut found = Vec::new();
    let mut open: Option<Vector> = None;
    for (line, text) in DOCUMENT.lines().enumerate() {
        if let Some(kind) = text.strip_prefix("```vector ") {
            assert!(open.is_none(), "line {line}: a block inside a block");
            let (fields, used) = (Vec::new(), RefCell::default());
            open = Some(Vector { kind, line: line + 1, fields, used });
        } else if text == "```" {
            found.extend(open.take());
        } else if let Some(vector) = &mut open {
            let (key, value) = text.split_once(": ").expect("key: value");
            vector.fields.push((key, value));
        }
    }
    assert!(open.is_none());
    found
}

fn check(v: &Vector) -> Checked {
    match v.kind {
        "varint" => varint(v),
        "packet-number" => packet_number(v),
        "short-header" => short_header(v),
        "long-header" => long_header(v),
        "retry" => retry(v),
        "version-list" => version_list(v),
        "transport-parameters" => transport_parameters(v),
        "frame" => frame(v),
        "payload" => payload(v),
        "payload-malformed" => payload_malformed(v),
        "transport" => transport(v),
        "control" => control(v),
        "stream-frame" => stream_frame(v),
        "sealed-long" => sealed_long(v),
        "sealed-short" => sealed_short(v),
        other => Err(format!("unknown kind {other}")),
    }?;
    let used = v.used.borrow();
    match v.fields.iter().find(|(key, _)| !used.contains(key)) {
        Some((key, _)) => Err(format!("{key} means nothing here")),
        None => Ok(()),
    }
}

#[test]
fn every_vector_holds_in_both_directions() {
    let mut count = BTreeMap::new();
    let mut failures = String::new();
    for vector in &vectors() {
        *count.entry(vector.kind).or_insert(0) += 1;
        if let Err(why) = check(vector) {
            let _ = writeln!(failures, "line {} ({}): {why}", vector.line, vector.kind);
        }
    }
    assert!(failures.is_empty(), "docs/protocol.md:\n{failures}");
    assert_eq!(count.len(), 15, "some kind of vector is missing: {count:?}");
    assert!(count.values().sum::<usize>() >= 50, "{count:?}");
}

fn varint(v: &Vector) -> Checked {
    let value = v.num::<u64>("value")?;
    let mut buf = [0; 8];
    let mut w = Writer::new(&mut buf);
    w.put_varint(value).map_err(|e| e.to_string())?;
    v.is_hex(w.as_written())?;
    same("value", Reader::new(&v.bytes("hex")?).varint(), Ok(value))
}

fn packet_number(v: &Vector) -> Checked {
    let low = u32::from_be_bytes(v.array("low")?);
    same("number", expand_pn(v.num("largest")?, low), v.num("number")?)
}

fn short_header(v: &Vector) -> Checked {
    let header =
        ShortHeader { key_phase: v.flag("key_phase")?, dcid: v.id("dcid")?, pn: v.num("pn")? };
    let mut buf = [0; SHORT_HEADER_LEN];
    header.write(&mut buf);
    v.is_hex(&buf)?;
    same("header", ShortHeader::parse(&v.bytes("hex")?), Some(header))
}

fn long_header(v: &Vector) -> Checked {
    let message = match v.get("message") {
        Some("ConnectionRequest") => MessageType::ConnectionRequest,
        Some("ConnectionResponse") => MessageType::ConnectionResponse,
        Some("AuthenticationRequest") => MessageType::AuthenticationRequest,
        other => return Err(format!("message {other:?}")),
    };
    let level = if v.flag("level")? { Level::Handshake } else { Level::Initial };
    let (dcid, scid, token) = (v.bytes("dcid")?, v.bytes("scid")?, v.bytes("token")?);
    let mut document = v.bytes("hex")?;
    let header = LongHeader {
        message,
        level,
        version: VERSION,
        dcid: &dcid,
        scid: &scid,
        token: &token,
        pn: v.num("pn")?,
        header_len: document.len(),
        payload_len: v.num("payload")?,
    };
    let mut buf = [0; 256];
    let len = header.write(&mut buf).map_err(|e| e.to_string())?;
    v.is_hex(&buf[..len])?;
    document.resize(header.packet_len(), 0);
    same("header", LongHeader::parse(&document), Ok(header))
}

fn retry(v: &Vector) -> Checked {
    let (dcid, scid) = (v.id("dcid")?, v.id("scid")?);
    let (token, original) = (v.bytes("token")?, v.bytes("original_dcid")?);
    let mut buf = [0; 256];
    let len = Retry::write(&mut buf, dcid, scid, &token, &original).map_err(|e| e.to_string())?;
    v.is_hex(&buf[..len])?;
    let document = v.bytes("hex")?;
    let parsed = Retry::parse(&document).map_err(|e| e.to_string())?;
    same("tag", parsed.verify(&original), true)?;
    same("fields", (parsed.dcid, parsed.scid, parsed.token), (dcid, scid, &token[..]))
}

fn version_list(v: &Vector) -> Checked {
    let (dcid, scid) = (v.bytes("dcid")?, v.bytes("scid")?);
    let versions: Vec<u32> =
        v.bytes("versions")?.as_chunks().0.iter().map(|c| u32::from_be_bytes(*c)).collect();
    let answered = LongPrefix { flags: 0x80, version: 1, dcid: &scid, scid: &dcid };
    let mut buf = [0; 256];
    let len = VersionList::write(&mut buf, &answered, &versions).map_err(|e| e.to_string())?;
    v.is_hex(&buf[..len])?;
    let document = v.bytes("hex")?;
    let parsed = VersionList::parse(&document).map_err(|e| e.to_string())?;
    same("ids", (parsed.dcid, parsed.scid), (&dcid[..], &scid[..]))?;
    same("versions", parsed.versions().collect(), versions)
}

fn transport_parameters(v: &Vector) -> Checked {
    let maybe_id = |key| v.get(key).map(|_| v.id(key)).transpose();
    let params = TransportParams {
        initial_source_id: v.id("initial_source_id")?,
        original_destination_id: maybe_id("original_destination_id")?,
        retry_source_id: maybe_id("retry_source_id")?,
        reset_token: v.get("reset_token").map(|_| v.array("reset_token")).transpose()?,
        max_packet: v.num("max_packet")?,
        connected_timeout_ms: v.num("connected_timeout_ms")?,
        max_ack_delay_us: v.num("max_ack_delay_us")?,
        early_data: v.num("early_data")?,
        control_window: v.num("control_window")?,
        max_channels: v.num("max_channels")?,
        max_message: v.num("max_message")?,
        max_datagram: v.num("max_datagram")?,
        ack_eliciting_threshold: v.num("ack_eliciting_threshold")?,
    };
    v.is_hex(&params.encode())?;
    same("parameters", TransportParams::parse(&v.bytes("hex")?), Ok(params))
}

fn frame(v: &Vector) -> Checked {
    let (channel, body) = (v.num("channel")?, v.bytes("body")?);
    let mut encoded = vec![0; limits::FRAME_OVERHEAD];
    let datagram = match v.maybe("count")? {
        Some(count) => Some(DatagramHeader { id: v.num("id")?, index: v.num("index")?, count }),
        None => None,
    };
    match datagram {
        Some(header) => write_datagram_header(&mut encoded, channel, header, body.len()),
        None => write_stream_header(&mut encoded, channel, v.num("offset")?, body.len()),
    }
    encoded.extend(&body);
    v.is_hex(&encoded)?;
    let document = v.bytes("hex")?;
    let frames: Vec<_> =
        Frames::new(&document).collect::<Result<_, _>>().map_err(|e| e.to_string())?;
    let [frame] = frames[..] else { return Err("not one frame".to_owned()) };
    same("channel and body", (frame.channel, frame.body), (channel, &body[..]))?;
    match datagram {
        Some(header) => {
            same("check", frame.datagram().check(body.len()), Ok(()))?;
            same("datagram", frame.datagram(), header)
        }
        None => same("offset", frame.offset(), v.num("offset")?),
    }
}

fn payload(v: &Vector) -> Checked {
    let parts = v.get("frames").unwrap_or_default().split(" + ");
    let expected: Vec<Vec<u8>> = parts.map(unhex).collect::<Result<_, _>>()?;
    let document = v.bytes("hex")?;
    let mut at = 0;
    let mut count = 0;
    for frame in Frames::new(&document) {
        let frame = frame.map_err(|e| e.to_string())?;
        let expected = expected.get(count).ok_or("more frames than given")?;
        let extra = if frame.channel == limits::TRANSPORT_CHANNEL { 0 } else { 6 };
        let len = 4 + extra + frame.body.len();
        same("frame", hex(&document[at..at + len]), hex(expected))?;
        at += len;
        count += 1;
    }
    same("frames", count, expected.len())?;
    same("padding", document[at..].iter().all(|b| *b == 0), true)
}

fn payload_malformed(v: &Vector) -> Checked {
    let _ = v.get("why");
    let document = v.bytes("hex")?;
    same("malformed", Frames::new(&document).any(|f| f.is_err()), true)
}

fn transport(v: &Vector) -> Checked {
    if v.get("type") == Some("ACK") {
        return ack(v);
    }
    let data = if v.get("data").is_some() { v.bytes("data")? } else { Vec::new() };
    let eight = || v.array::<8>("data");
    let frame = match v.get("type").unwrap_or_default() {
        "PING" => TransportFrame::Ping,
        "CREDIT" => TransportFrame::Credit { channel: v.num("channel")?, limit: v.num("limit")? },
        "EARLY_CREDIT" => TransportFrame::EarlyCredit { limit: v.num("limit")? },
        "CHANNEL_RESET" => TransportFrame::ChannelReset {
            channel: v.num("channel")?,
            code: v.num("code")?,
            final_offset: v.num("final_offset")?,
        },
        "CHANNEL_STOP" => {
            TransportFrame::ChannelStop { channel: v.num("channel")?, code: v.num("code")? }
        }
        "CLOSE" => TransportFrame::Close {
            reason: Reason(v.num("reason")?),
            discarded: v.flag("discarded")?,
            text: v.text("text")?,
        },
        "CLOSE_ACK" => TransportFrame::CloseAck,
        "PATH_CHALLENGE" => TransportFrame::PathChallenge(eight()?),
        "PATH_RESPONSE" => TransportFrame::PathResponse(eight()?),
        "NEW_CONNECTION_ID" => TransportFrame::NewConnectionId {
            sequence: v.num("sequence")?,
            retire_prior_to: v.num("retire_prior_to")?,
            id: v.id("id")?,
            token: v.array("token")?,
        },
        "RETIRE_CONNECTION_ID" => {
            TransportFrame::RetireConnectionId { sequence: v.num("sequence")? }
        }
        "ACK_FREQUENCY" => TransportFrame::AckFrequency {
            threshold: v.num("threshold")?,
            max_delay: Duration::from_micros(v.num("max_delay_us")?),
        },
        "CRYPTO" => TransportFrame::Crypto { offset: v.num("offset")?, data: &data },
        other => return Err(format!("unknown type {other}")),
    };
    let mut buf = [0; 256];
    let mut w = Writer::new(&mut buf);
    frame.write(&mut w).map_err(|e| e.to_string())?;
    v.is_hex(w.as_written())?;
    let document = v.bytes("hex")?;
    same("frame", parse_transport(&document)?, frame)
}

fn parse_transport(document: &[u8]) -> Result<TransportFrame<'_>, String> {
    let mut frames = Frames::new(document);
    let raw = frames.next().ok_or("no frame")?.map_err(|e| e.to_string())?;
    same("frames behind it", frames.count(), 0)?;
    same("channel", raw.channel, limits::TRANSPORT_CHANNEL)?;
    TransportFrame::parse(raw.body).map_err(|e| e.to_string())
}

fn ack(v: &Vector) -> Checked {
    let delay = Duration::from_micros(v.num("delay_us")?);
    let range = |text: &str| {
        let (start, end) = text.split_once('-')?;
        Some(start.parse::<u64>().ok()?..=end.parse::<u64>().ok()?)
    };
    let ranges = v.get("ranges").unwrap_or_default().split(' ');
    let ranges: Vec<_> = ranges.map(range).collect::<Option<_>>().ok_or("ranges")?;
    let ecn = match v.get("ecn") {
        None => None,
        Some(text) => {
            let counts: Vec<u64> = text.split(' ').filter_map(|n| n.parse().ok()).collect();
            let [ect0, ect1, ce] = counts[..] else { return Err("ecn".to_owned()) };
            Some(EcnCounts { ect0, ect1, ce })
        }
    };
    let mut buf = [0; 256];
    let mut w = Writer::new(&mut buf);
    let written = write_ack(&mut w, delay, ranges.iter().cloned(), ecn);
    same("ranges written", written, Ok(ranges.len()))?;
    v.is_hex(w.as_written())?;
    let document = v.bytes("hex")?;
    let TransportFrame::Ack(ack) = parse_transport(&document)? else {
        return Err("no ACK".to_owned());
    };
    same("delay and counts", (ack.delay, ack.ecn), (delay, ecn))?;
    same("ranges", ack.ranges().collect(), ranges)
}

fn control(v: &Vector) -> Checked {
    let mut encoded = Vec::new();
    let (credential, parameters);
    let message = match v.get("message").unwrap_or_default() {
        "ChannelRequest" => {
            let message = channel_request(v)?;
            control::encode_channel_request(&mut encoded, &message);
            ControlMessage::ChannelRequest(message)
        }
        "AuthenticationRequest" => {
            credential = v.bytes("credential")?;
            control::encode_authentication_request(&mut encoded, &credential);
            ControlMessage::AuthenticationRequest { credential: &credential }
        }
        "AuthenticationResponse" => {
            let (accepted, reason) = (v.num("accepted")?, Reason(v.num("reason")?));
            let text = v.text("text")?;
            control::encode_authentication_response(&mut encoded, accepted, reason, text);
            ControlMessage::AuthenticationResponse { accepted, reason, text }
        }
        "Activity" => {
            let number = |key| v.num(key);
            let activity = match v.num::<u8>("level")? {
                0 => Activity::Active,
                1 => Activity::Idle { count: number("count")? },
                _ => Activity::Retiring { count: number("count")?, answers: number("answers")? },
            };
            control::encode_activity(&mut encoded, activity);
            ControlMessage::Activity(activity)
        }
        name => {
            parameters = if name == "Parameters" { v.bytes("parameters")? } else { Vec::new() };
            let message = link_message(v, name, &parameters)?;
            message.encode(&mut encoded);
            ControlMessage::Link(message)
        }
    };
    v.is_hex(&encoded)?;
    let document = v.bytes("hex")?;
    same("length", control::next_value(&document), Ok(Some(document.len())))?;
    same("message", control::parse(&document), Ok(message))
}

fn link_message<'a>(
    v: &Vector,
    name: &str,
    parameters: &'a [u8],
) -> Result<LinkMessage<'a>, String> {
    let channel = || v.num("channel");
    Ok(match name {
        "Parameters" => LinkMessage::Parameters(parameters),
        "Consumed" => LinkMessage::Consumed { position: v.num("position")? },
        "Ping" => LinkMessage::Ping,
        "Credit" => LinkMessage::Credit { channel: channel()?, limit: v.num("limit")? },
        "ChannelReset" => LinkMessage::Reset {
            channel: channel()?,
            code: v.num("code")?,
            final_offset: v.num("final_offset")?,
        },
        "ChannelStop" => LinkMessage::Stop { channel: channel()?, code: v.num("code")? },
        "Close" => LinkMessage::Close {
            reason: Reason(v.num("reason")?),
            discarded: v.num("discarded")?,
            text: v.text("text")?,
        },
        "CloseAck" => LinkMessage::CloseAck,
        other => return Err(format!("unknown message {other}")),
    })
}

/// A frame of the stream link: the header alone stands before the body.
fn stream_frame(v: &Vector) -> Checked {
    let (channel, body) = (v.num("channel")?, v.bytes("body")?);
    let mut encoded = vec![0; limits::FRAME_HEADER_LEN];
    write_bare_header(&mut encoded, channel, body.len());
    encoded.extend(body);
    v.is_hex(&encoded)
}

fn channel_request(v: &Vector) -> Result<ChannelRequestMessage<'static>, String> {
    let default = RequestOptions::default();
    let options = RequestOptions {
        has_map: false,
        kind: match v.maybe::<u8>("kind")? {
            None | Some(0) => ChannelKind::Bytes,
            Some(1) => ChannelKind::Messages,
            Some(_) => ChannelKind::Datagrams,
        },
        priority: v.maybe("priority")?.unwrap_or(default.priority),
        weight: v.maybe("weight")?.unwrap_or(default.weight),
        window: v.maybe("window")?,
        since: v.maybe("since")?,
        latest: v.maybe("latest")?.unwrap_or(default.latest),
        expires_ms: v.maybe("expires_ms")?.unwrap_or(default.expires_ms),
        declined: v.maybe("declined")?,
        reason: if v.get("reason").is_some() { v.text("reason")? } else { default.reason },
    };
    let options = RequestOptions { has_map: options != default, ..options };
    let (channel, is_answer) = (v.num("channel")?, v.num("is_answer")?);
    Ok(ChannelRequestMessage { name: v.text("name")?, channel, is_answer, options })
}

// ---- sealed packets

/// Seals with nothing but `ring`, as the document describes it: an implementation of its own.
fn seal_by_hand(v: &Vector, pn: u64, header: &[u8], payload: &[u8]) -> Result<Vec<u8>, String> {
    let key = v.bytes("key")?;
    let mut nonce: [u8; 12] = v.array("iv")?;
    for (byte, pn) in nonce[4..].iter_mut().zip(pn.to_be_bytes()) {
        *byte ^= pn;
    }
    let key = aead::UnboundKey::new(&aead::AES_128_GCM, &key).map_err(|e| e.to_string())?;
    let nonce = aead::Nonce::assume_unique_for_key(nonce);
    let mut sealed = payload.to_vec();
    aead::LessSafeKey::new(key)
        .seal_in_place_append_tag(nonce, aead::Aad::from(header), &mut sealed)
        .map_err(|e| e.to_string())?;
    Ok([header, &sealed].concat())
}

fn initial_keys(dcid: &[u8], side: Side) -> Result<Keys, String> {
    let suite = TLS13_AES_128_GCM_SHA256.tls13().ok_or("no TLS 1.3")?;
    let quic = suite.quic.ok_or("no QUIC keys")?;
    Ok(Keys::initial(Version::V1, suite, quic, dcid, side))
}

/// Seals and opens with the keys that the two sides of a handshake derive from `dcid`.
fn seal_and_open(
    dcid: &[u8],
    pn: u64,
    header: &[u8],
    payload: &[u8],
    document: &[u8],
) -> Result<Vec<u8>, String> {
    let client = initial_keys(dcid, Side::Client)?;
    let mut sealed = payload.to_vec();
    let tag = client.local.packet.encrypt_in_place(pn, header, &mut sealed);
    let tag = tag.map_err(|e| e.to_string())?;
    let host = initial_keys(dcid, Side::Server)?;
    let (head, rest) = document.split_at_checked(header.len()).ok_or("shorter than a header")?;
    let mut opened = rest.to_vec();
    let opened = host.remote.packet.decrypt_in_place(pn, head, &mut opened);
    same("opened", opened.map(hex).map_err(|e| e.to_string()), Ok(hex(payload)))?;
    Ok([header, &sealed, tag.as_ref()].concat())
}

fn sealed_long(v: &Vector) -> Checked {
    let (dcid, scid, token) = (v.bytes("dcid")?, v.bytes("scid")?, v.bytes("token")?);
    let (payload, pn) = (v.bytes("payload")?, v.num("pn")?);
    let header = LongHeader {
        message: MessageType::ConnectionRequest,
        level: Level::Initial,
        version: VERSION,
        dcid: &dcid,
        scid: &scid,
        token: &token,
        pn,
        header_len: 0,
        payload_len: payload.len() + TAG_LEN,
    };
    let mut buf = [0; 256];
    let len = header.write(&mut buf).map_err(|e| e.to_string())?;
    let header = &buf[..len];
    v.is_hex(&seal_by_hand(v, pn.into(), header, &payload)?)?;
    let document = v.bytes("hex")?;
    v.is_hex(&seal_and_open(&dcid, pn.into(), header, &payload, &document)?)?;
    let parsed = LongHeader::parse(&document).map_err(|e| e.to_string())?;
    same("length", parsed.packet_len(), document.len())?;
    frames_are_valid(&payload)
}

fn sealed_short(v: &Vector) -> Checked {
    let (payload, pn) = (v.bytes("payload")?, v.num::<u64>("pn")?);
    let header =
        ShortHeader { key_phase: v.flag("key_phase")?, dcid: v.id("dcid")?, pn: pn as u32 };
    let mut head = [0; SHORT_HEADER_LEN];
    header.write(&mut head);
    v.is_hex(&seal_by_hand(v, pn, &head, &payload)?)?;
    let (keys_of, document) = (v.bytes("initial_keys_of")?, v.bytes("hex")?);
    v.is_hex(&seal_and_open(&keys_of, pn, &head, &payload, &document)?)?;
    same("header", ShortHeader::parse(&document), Some(header))?;
    frames_are_valid(&payload)
}

fn frames_are_valid(payload: &[u8]) -> Checked {
    same("frames", Frames::new(payload).all(|f| f.is_ok()), true)
}

// ---- tables

/// Cells of the table rows in the section with this heading.
fn table(section: &str) -> Vec<Vec<&'static str>> {
    let start = DOCUMENT.find(section).unwrap_or_else(|| panic!("no section {section}"));
    let body = &DOCUMENT[start + section.len()..];
    let body = &body[..body.find("\n## ").unwrap_or(body.len())];
    let rows = body.lines().filter_map(|l| l.strip_prefix("| ")?.strip_suffix('|'));
    rows.map(|row| row.split('|').map(str::trim).collect()).collect()
}

fn code(cell: &str) -> Option<u64> {
    let digits = cell.trim_matches('`');
    match digits.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => digits.parse().ok(),
    }
}

#[test]
fn the_limits_are_those_of_the_code() {
    macro_rules! limits {
        ($($name:ident)*) => { [$((stringify!($name), limits::$name as u64)),*] };
    }
    let expected = limits! {
        VERSION CONNECTION_ID_LEN RESET_TOKEN_LEN SHORT_HEADER_LEN TAG_LEN MIN_SHORT_PACKET
        MIN_PACKET MAX_PACKET MAX_RETRY_TOKEN MAX_RETRIES AMPLIFICATION_FACTOR MAX_CRYPTO_BUFFER
        MAX_TRANSPORT_PARAMS FRAME_HEADER_LEN FRAME_EXTRA_LEN MAX_FRAME_BODY MAX_STREAM_OFFSET
        CLIENT_FIRST_CHANNEL HOST_FIRST_CHANNEL TRANSPORT_CHANNEL MAX_CHANNELS MAX_CHANNEL_NAME
        MAX_CONTROL_MESSAGE MAX_CONTROL_NESTING MAX_CREDENTIAL MAX_REASON_TEXT MAX_MESSAGE
        MAX_DATAGRAM MAX_FRAGMENTS MIN_CHANNEL_WINDOW PRIORITIES MAX_ACK_RANGES REPLAY_WINDOW
        MAX_PEER_CONNECTION_IDS MAX_PATH_CHALLENGES
    };
    let rows: BTreeMap<_, _> = table("## 14. Limits")
        .iter()
        .filter_map(|row| Some((row[2].trim_matches('`'), code(row[1])?)))
        .collect();
    assert_eq!(rows, expected.into_iter().collect());
}

#[test]
fn the_frame_types_are_those_of_the_code() {
    let expected = [
        ("PING", kind::PING),
        ("ACK", kind::ACK),
        ("CREDIT", kind::CREDIT),
        ("EARLY_CREDIT", kind::EARLY_CREDIT),
        ("CHANNEL_RESET", kind::CHANNEL_RESET),
        ("CHANNEL_STOP", kind::CHANNEL_STOP),
        ("CLOSE", kind::CLOSE),
        ("CLOSE_ACK", kind::CLOSE_ACK),
        ("PATH_CHALLENGE", kind::PATH_CHALLENGE),
        ("PATH_RESPONSE", kind::PATH_RESPONSE),
        ("NEW_CONNECTION_ID", kind::NEW_CONNECTION_ID),
        ("RETIRE_CONNECTION_ID", kind::RETIRE_CONNECTION_ID),
        ("ACK_FREQUENCY", kind::ACK_FREQUENCY),
        ("CRYPTO", kind::CRYPTO),
    ];
    let rows: Vec<_> = table("## 7. TRANSPORT frames")
        .iter()
        .filter_map(|row| Some((row[1], code(row[0])? as u8)))
        .collect();
    assert_eq!(rows, expected);
}

#[test]
fn the_transport_parameters_are_those_of_the_code() {
    use params::id;
    let d = TransportParams::default();
    let expected = [
        (id::ORIGINAL_DESTINATION_ID, "original_destination_id", None),
        (id::CONNECTED_TIMEOUT_MS, "connected_timeout_ms", Some(d.connected_timeout_ms)),
        (id::RESET_TOKEN, "reset_token", None),
        (id::MAX_PACKET, "max_packet", Some(d.max_packet)),
        (id::CONTROL_WINDOW, "control_window", Some(d.control_window)),
        (id::EARLY_DATA, "early_data", Some(d.early_data)),
        (id::MAX_CHANNELS, "max_channels", Some(d.max_channels.into())),
        (id::MAX_MESSAGE, "max_message", Some(d.max_message)),
        (id::MAX_DATAGRAM, "max_datagram", Some(d.max_datagram)),
        (id::ACK_ELICITING_THRESHOLD, "ack_eliciting_threshold", Some(d.ack_eliciting_threshold)),
        (id::MAX_ACK_DELAY_US, "max_ack_delay_us", Some(d.max_ack_delay_us)),
        (id::INITIAL_SOURCE_ID, "initial_source_id", None),
        (id::RETRY_SOURCE_ID, "retry_source_id", None),
    ];
    let rows: Vec<_> = table("## 5. Transport parameters")
        .iter()
        .filter_map(|row| Some((code(row[0])?, row[1], code(row[3]))))
        .collect();
    assert_eq!(rows, expected);
}

#[test]
fn the_reasons_are_those_of_the_code() {
    let mut single = 0;
    for row in table("## 13. Errors") {
        let codes = match row[0].split_once('–') {
            Some((first, last)) => [code(first), code(last)],
            None => [code(row[0]); 2],
        };
        for reason in codes.into_iter().flatten() {
            assert_eq!(Reason(reason as u32).name(), row[1], "{reason}");
            single += 1;
        }
    }
    assert_eq!(single, 2 * 18, "a row of the table was not read");
    for reason in 3000..6000 {
        let listed = table("## 13. Errors").iter().any(|row| code(row[0]) == Some(reason));
        assert_eq!(Reason(reason as u32).name() != "unknown", listed, "{reason}");
    }
}
