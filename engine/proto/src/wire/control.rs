//! Messages of the CONTROL channel: msgpack values back to back, each an array.
//!
//! A first element that is a string makes the array a ChannelRequest; an integer gives the type of
//! any other message. Elements, map keys and types that we do not know are skipped, so that later
//! versions can add some.
//!
//! [`next_value`] finds out whether a whole value has arrived, without believing any length that
//! lies beyond the bounds; [`parse`] borrows from it. Errors name the field.

use crate::config::ChannelKind;
use crate::error::{PeerMisbehaved, Reason, cut};
use crate::limits::{
    MAX_CHANNEL_NAME, MAX_CONTROL_MESSAGE, MAX_CONTROL_NESTING, MAX_CREDENTIAL, MAX_REASON_TEXT,
    PRIORITIES,
};
use crate::wire::codec::{Reader, Truncated};
use crate::wire::link_message::{self, LinkMessage};
use core::ops::RangeInclusive;
use rmp::Marker;
use rmp::decode::{Bytes, read_array_len, read_bin_len, read_bool, read_int, read_map_len};
use rmp::encode::{
    write_array_len, write_bin, write_bool, write_map_len, write_str, write_uint as put_uint,
};

/// Type of an AuthenticationRequest.
const AUTHENTICATION_REQUEST: u64 = 1;
/// Type of an AuthenticationResponse.
const AUTHENTICATION_RESPONSE: u64 = 2;
/// Type of an Activity message.
const ACTIVITY: u64 = 3;

/// How much the sender of an Activity message still wants of the connection. A later message
/// replaces an earlier one; before the first it is [`Activity::Active`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Activity {
    /// It uses it, or may do so any time.
    #[default]
    Active,
    /// No channel is open and nothing has moved for its hold time.
    Idle {
        /// Counts the times at which the sender became idle.
        count: u32,
    },
    /// Idle, it knows that the receiver of this message is idle too, and starts nothing on the
    /// connection before the receiver says that it is active again.
    Retiring {
        /// As in Idle.
        count: u32,
        /// The count of the receiver's message that this answers.
        answers: u32,
    },
}

/// One message of the CONTROL channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlMessage<'a> {
    /// Asks for a channel, or answers such a request.
    ChannelRequest(ChannelRequestMessage<'a>),
    /// Client: who it is, in the application's terms. The first message of the client.
    AuthenticationRequest {
        /// The credential, at most [`MAX_CREDENTIAL`] bytes; empty when the client has none.
        credential: &'a [u8],
    },
    /// Host: whether it lets the client in. The first message of the host.
    AuthenticationResponse {
        /// Whether it does.
        accepted: bool,
        /// Why not; [`Reason::APP`] without meaning when accepted.
        reason: Reason,
        /// Words for people, at most [`MAX_REASON_TEXT`] bytes.
        text: &'a str,
    },
    /// How much the sender still wants of the connection.
    Activity(Activity),
    /// Stream link: what TRANSPORT frames say on the datagram link.
    Link(LinkMessage<'a>),
    /// A type that we do not know; ignored.
    Unknown,
}

/// A request for a channel, or the answer: `[name, channel, is_answer, options?]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChannelRequestMessage<'a> {
    /// The name; at most [`MAX_CHANNEL_NAME`] bytes, not unique.
    pub name: &'a str,
    /// The channel id, chosen by the opener.
    pub channel: u16,
    /// `false`: a request. `true`: its answer.
    pub is_answer: bool,
    /// The fourth element.
    pub options: RequestOptions<'a>,
}

/// Options of a request or an answer; what is absent has the value of
/// [`RequestOptions::default`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestOptions<'a> {
    /// Whether the message has a fourth element at all. An encoder writes one also when some
    /// option differs from its default.
    pub has_map: bool,
    /// What the channel carries.
    pub kind: ChannelKind,
    /// Priority class of what the sender of this message sends, 0–7.
    pub priority: u8,
    /// Weight of what the sender of this message sends, at least 1.
    pub weight: u8,
    /// Stream bytes that the receiver of this message may send on the channel in all.
    pub window: Option<u64>,
    /// Next packet number of the sender: frames of the channel in older packets belong to a former
    /// life of its id.
    pub since: Option<u64>,
    /// `datagrams`: a message that arrives after a newer one is dropped.
    pub latest: bool,
    /// `datagrams`: milliseconds after which an unsent message is dropped; 0 = never.
    pub expires_ms: u32,
    /// Answers only: the request is declined with this code.
    pub declined: Option<u32>,
    /// Words that go with `declined`, at most [`MAX_REASON_TEXT`] bytes.
    pub reason: &'a str,
}

impl Default for RequestOptions<'_> {
    fn default() -> Self {
        Self {
            has_map: false,
            kind: ChannelKind::Bytes,
            priority: 4,
            weight: 16,
            window: None,
            since: None,
            latest: false,
            expires_ms: 0,
            declined: None,
            reason: "",
        }
    }
}

pub(super) const fn bad(why: &'static str) -> PeerMisbehaved {
    PeerMisbehaved::Control(why)
}

/// What follows a marker.
enum Shape {
    /// This many bytes.
    Bytes(u64),
    /// This many values.
    Values(u64),
}

/// Bytes of the first msgpack value in `buf`; `None` when it is not complete yet.
///
/// Fails as soon as what has arrived cannot become a message within the bounds: more than
/// [`MAX_CONTROL_MESSAGE`] bytes, arrays or maps nested deeper than [`MAX_CONTROL_NESTING`], or the
/// one byte that msgpack never uses.
pub fn next_value(buf: &[u8]) -> Result<Option<usize>, PeerMisbehaved> {
    let mut r = Reader::new(buf);
    // How many values are still to come at each level of nesting, and in all of them.
    let mut open = [0u64; MAX_CONTROL_NESTING];
    let mut depth = 0;
    let mut pending = 1u64;
    loop {
        let Ok(marker) = r.u8() else { return Ok(None) };
        let shape = match shape(Marker::from_u8(marker), &mut r) {
            Ok(shape) => shape?,
            Err(Truncated) => return Ok(None),
        };
        pending -= 1;
        let (bytes, values) = match shape {
            Shape::Bytes(n) => (n, 0),
            Shape::Values(n) => (0, n),
        };
        pending += values;
        // Every value that is still to come has at least one byte.
        let read = (buf.len() - r.remaining()) as u64;
        if read + bytes + pending > MAX_CONTROL_MESSAGE as u64 {
            return Err(PeerMisbehaved::Limit("control message size"));
        }
        if r.bytes(bytes as usize).is_err() {
            return Ok(None);
        }
        if let Shape::Values(n) = shape {
            *open.get_mut(depth).ok_or(PeerMisbehaved::Limit("control message nesting"))? = n;
            depth += 1;
        } else if depth > 0 {
            open[depth - 1] -= 1;
        }
        // Close the levels that are complete; each was one value of the level around it.
        while depth > 0 && open[depth - 1] == 0 {
            depth -= 1;
            if depth > 0 {
                open[depth - 1] -= 1;
            }
        }
        if pending == 0 {
            return Ok(Some(buf.len() - r.remaining()));
        }
    }
}

fn shape(marker: Marker, r: &mut Reader<'_>) -> Result<Result<Shape, PeerMisbehaved>, Truncated> {
    use Shape::{Bytes, Values};
    Ok(Ok(match marker {
        Marker::FixPos(_) | Marker::FixNeg(_) | Marker::Null | Marker::False | Marker::True => {
            Bytes(0)
        }
        Marker::U8 | Marker::I8 => Bytes(1),
        Marker::U16 | Marker::I16 | Marker::FixExt1 => Bytes(2),
        Marker::FixExt2 => Bytes(3),
        Marker::U32 | Marker::I32 | Marker::F32 => Bytes(4),
        Marker::FixExt4 => Bytes(5),
        Marker::U64 | Marker::I64 | Marker::F64 => Bytes(8),
        Marker::FixExt8 => Bytes(9),
        Marker::FixExt16 => Bytes(17),
        Marker::FixStr(n) => Bytes(n.into()),
        Marker::Str8 | Marker::Bin8 => Bytes(r.u8()?.into()),
        Marker::Str16 | Marker::Bin16 => Bytes(r.u16()?.into()),
        Marker::Str32 | Marker::Bin32 => Bytes(r.u32()?.into()),
        Marker::Ext8 => Bytes(u64::from(r.u8()?) + 1),
        Marker::Ext16 => Bytes(u64::from(r.u16()?) + 1),
        Marker::Ext32 => Bytes(u64::from(r.u32()?) + 1),
        Marker::FixArray(n) => Values(n.into()),
        Marker::Array16 => Values(r.u16()?.into()),
        Marker::Array32 => Values(r.u32()?.into()),
        Marker::FixMap(n) => Values(u64::from(n) * 2),
        Marker::Map16 => Values(u64::from(r.u16()?) * 2),
        Marker::Map32 => Values(u64::from(r.u32()?) * 2),
        Marker::Reserved => return Ok(Err(bad("message has a byte that msgpack never uses"))),
    }))
}

/// Parses one whole value, as measured by [`next_value`].
pub fn parse(value: &[u8]) -> Result<ControlMessage<'_>, PeerMisbehaved> {
    match next_value(value)? {
        Some(len) if len == value.len() => {}
        Some(_) => return Err(bad("message has bytes behind its end")),
        None => return Err(bad("message is truncated")),
    }
    let mut d = Decoder { rd: Bytes::new(value) };
    let count = read_array_len(&mut d.rd).map_err(|_| bad("message is not an array"))?;
    if count == 0 {
        return Err(bad("message is empty"));
    }
    match d.peek() {
        Some(marker) if is_str(marker) => {
            d.channel_request(count).map(ControlMessage::ChannelRequest)
        }
        Some(marker) if is_int(marker) => match read_int::<u64, _>(&mut d.rd) {
            Ok(AUTHENTICATION_REQUEST) => d.authentication_request(count),
            Ok(AUTHENTICATION_RESPONSE) => d.authentication_response(count),
            Ok(ACTIVITY) => d.activity(count),
            Ok(kind) => Ok(link_message::parse(&mut d, kind, count)?
                .map_or(ControlMessage::Unknown, ControlMessage::Link)),
            Err(_) => Ok(ControlMessage::Unknown),
        },
        _ => Err(bad("message starts with neither a name nor a type")),
    }
}

const fn is_str(marker: Marker) -> bool {
    matches!(marker, Marker::FixStr(_) | Marker::Str8 | Marker::Str16 | Marker::Str32)
}

const fn is_int(marker: Marker) -> bool {
    use Marker::{FixNeg, FixPos, I8, I16, I32, I64, U8, U16, U32, U64};
    matches!(marker, FixPos(_) | FixNeg(_) | U8 | U16 | U32 | U64 | I8 | I16 | I32 | I64)
}

/// Reads from one whole, bounded value.
pub(super) struct Decoder<'a> {
    rd: Bytes<'a>,
}

impl<'a> Decoder<'a> {
    fn peek(&self) -> Option<Marker> {
        self.rd.remaining_slice().first().map(|b| Marker::from_u8(*b))
    }

    fn skip(&mut self) -> Result<(), PeerMisbehaved> {
        match next_value(self.rd.remaining_slice())? {
            Some(len) => self.take(len as u32).map(drop),
            None => Err(bad("message is truncated")),
        }
    }

    fn take(&mut self, len: u32) -> Result<&'a [u8], PeerMisbehaved> {
        let split = self.rd.remaining_slice().split_at_checked(len as usize);
        let (head, rest) = split.ok_or(bad("message is truncated"))?;
        self.rd = Bytes::new(rest);
        Ok(head)
    }

    pub(super) fn uint(
        &mut self,
        range: RangeInclusive<u64>,
        why: &'static str,
    ) -> Result<u64, PeerMisbehaved> {
        match read_int::<u64, _>(&mut self.rd) {
            Ok(value) if range.contains(&value) => Ok(value),
            _ => Err(bad(why)),
        }
    }

    pub(super) fn bool(&mut self, why: &'static str) -> Result<bool, PeerMisbehaved> {
        read_bool(&mut self.rd).map_err(|_| bad(why))
    }

    fn raw_str(&mut self, why: &'static str) -> Result<&'a [u8], PeerMisbehaved> {
        let len = rmp::decode::read_str_len(&mut self.rd).map_err(|_| bad(why))?;
        self.take(len)
    }

    pub(super) fn bin(
        &mut self,
        max: usize,
        why: [&'static str; 2],
    ) -> Result<&'a [u8], PeerMisbehaved> {
        let [not_bin, too_long] = why;
        let len = read_bin_len(&mut self.rd).map_err(|_| bad(not_bin))?;
        let bytes = self.take(len)?;
        if bytes.len() > max { Err(bad(too_long)) } else { Ok(bytes) }
    }

    pub(super) fn str(
        &mut self,
        max: usize,
        why: [&'static str; 3],
    ) -> Result<&'a str, PeerMisbehaved> {
        let [not_str, too_long, not_utf8] = why;
        let raw = self.raw_str(not_str)?;
        if raw.len() > max {
            return Err(bad(too_long));
        }
        core::str::from_utf8(raw).map_err(|_| bad(not_utf8))
    }

    fn channel_request(&mut self, count: u32) -> Result<ChannelRequestMessage<'a>, PeerMisbehaved> {
        if count < 3 {
            return Err(bad("ChannelRequest has fewer than 3 elements"));
        }
        let name = self.str(
            MAX_CHANNEL_NAME,
            ["name is not a string", "name is longer than 1024 bytes", "name is not UTF-8"],
        )?;
        let max = u64::from(u16::MAX);
        let channel = self.uint(0..=max, "channel is not an unsigned 16-bit integer")? as u16;
        let is_answer = self.bool("is_answer is not a boolean")?;
        // Elements behind the fourth are ignored; nothing follows that would have to be read.
        let options = match self.peek() {
            Some(Marker::Null) | None => RequestOptions::default(),
            Some(_) if count < 4 => RequestOptions::default(),
            Some(_) => self.options()?,
        };
        Ok(ChannelRequestMessage { name, channel, is_answer, options })
    }

    fn options(&mut self) -> Result<RequestOptions<'a>, PeerMisbehaved> {
        let count = read_map_len(&mut self.rd).map_err(|_| bad("options is not a map"))?;
        let mut options = RequestOptions { has_map: true, ..RequestOptions::default() };
        let mut seen = 0u16;
        for _ in 0..count {
            let key = if self.peek().is_some_and(is_str) {
                self.raw_str("options has a broken key")?
            } else {
                self.skip()?;
                &[]
            };
            self.option(&mut options, key, &mut seen)?;
        }
        Ok(options)
    }

    fn option(
        &mut self,
        options: &mut RequestOptions<'a>,
        key: &[u8],
        seen: &mut u16,
    ) -> Result<(), PeerMisbehaved> {
        let mut once = |bit: u16, why| {
            let twice = *seen & 1 << bit != 0;
            *seen |= 1 << bit;
            if twice { Err(bad(why)) } else { Ok(()) }
        };
        let u32_max = u64::from(u32::MAX);
        match key {
            b"kind" => {
                once(0, "options.kind comes twice")?;
                options.kind = match self.uint(0..=2, "options.kind is not 0, 1 or 2")? {
                    0 => ChannelKind::Bytes,
                    1 => ChannelKind::Messages,
                    _ => ChannelKind::Datagrams,
                };
            }
            b"priority" => {
                once(1, "options.priority comes twice")?;
                let max = PRIORITIES as u64 - 1;
                options.priority = self.uint(0..=max, "options.priority is not in 0..=7")? as u8;
            }
            b"weight" => {
                once(2, "options.weight comes twice")?;
                options.weight = self.uint(1..=255, "options.weight is not in 1..=255")? as u8;
            }
            b"window" => {
                once(3, "options.window comes twice")?;
                let why = "options.window is not an unsigned 64-bit integer";
                options.window = Some(self.uint(0..=u64::MAX, why)?);
            }
            b"since" => {
                once(4, "options.since comes twice")?;
                let why = "options.since is not an unsigned 64-bit integer";
                options.since = Some(self.uint(0..=u64::MAX, why)?);
            }
            b"latest" => {
                once(5, "options.latest comes twice")?;
                options.latest = self.bool("options.latest is not a boolean")?;
            }
            b"expires_ms" => {
                once(6, "options.expires_ms comes twice")?;
                let why = "options.expires_ms is not an unsigned 32-bit integer";
                options.expires_ms = self.uint(0..=u32_max, why)? as u32;
            }
            b"declined" => {
                once(7, "options.declined comes twice")?;
                let why = "options.declined is not an unsigned 32-bit integer";
                options.declined = Some(self.uint(0..=u32_max, why)? as u32);
            }
            b"reason" => {
                once(8, "options.reason comes twice")?;
                let why = [
                    "options.reason is not a string",
                    "options.reason is longer than 127 bytes",
                    "options.reason is not UTF-8",
                ];
                options.reason = self.str(MAX_REASON_TEXT, why)?;
            }
            _ => self.skip()?,
        }
        Ok(())
    }

    fn authentication_request(&mut self, count: u32) -> Result<ControlMessage<'a>, PeerMisbehaved> {
        if count < 2 {
            return Err(bad("AuthenticationRequest has fewer than 2 elements"));
        }
        let why = ["credential is not binary", "credential is longer than 8192 bytes"];
        let credential = self.bin(MAX_CREDENTIAL, why)?;
        Ok(ControlMessage::AuthenticationRequest { credential })
    }

    fn authentication_response(
        &mut self,
        count: u32,
    ) -> Result<ControlMessage<'a>, PeerMisbehaved> {
        if count < 4 {
            return Err(bad("AuthenticationResponse has fewer than 4 elements"));
        }
        let accepted = self.bool("accepted is not a boolean")?;
        let max = u64::from(u32::MAX);
        let reason = Reason(self.uint(0..=max, "reason is not an unsigned 32-bit integer")? as u32);
        let text = self.str(
            MAX_REASON_TEXT,
            ["text is not a string", "text is longer than 127 bytes", "text is not UTF-8"],
        )?;
        Ok(ControlMessage::AuthenticationResponse { accepted, reason, text })
    }
}

impl Decoder<'_> {
    fn activity<'a>(&mut self, count: u32) -> Result<ControlMessage<'a>, PeerMisbehaved> {
        if count < 2 {
            return Err(bad("Activity has fewer than 2 elements"));
        }
        let level = self.uint(0..=2, "activity is not 0, 1 or 2")?;
        if u64::from(count) < level + 2 {
            return Err(bad("Activity has fewer elements than its level needs"));
        }
        let mut number = |why| self.uint(0..=u64::from(u32::MAX), why).map(|n| n as u32);
        let level = if level == 0 {
            Activity::Active
        } else {
            let count = number("count is not an unsigned 32-bit integer")?;
            if level == 1 {
                Activity::Idle { count }
            } else {
                let answers = number("answers is not an unsigned 32-bit integer")?;
                Activity::Retiring { count, answers }
            }
        };
        Ok(ControlMessage::Activity(level))
    }
}

/// Appends to a vector, which never fails: the results of `rmp` are dropped here, once.
pub(super) struct Encoder<'v>(pub &'v mut Vec<u8>);

impl Encoder<'_> {
    pub(super) fn array(&mut self, len: u32) {
        let _ = write_array_len(self.0, len);
    }

    fn map(&mut self, len: u32) {
        let _ = write_map_len(self.0, len);
    }

    pub(super) fn uint(&mut self, value: u64) {
        let _ = put_uint(self.0, value);
    }

    pub(super) fn bool(&mut self, value: bool) {
        let _ = write_bool(self.0, value);
    }

    pub(super) fn str(&mut self, value: &str) {
        let _ = write_str(self.0, value);
    }

    pub(super) fn bin(&mut self, value: &[u8]) {
        let _ = write_bin(self.0, value);
    }
}

/// Appends a request or an answer. Options equal to their default are left out, and with all of
/// them (and `has_map` unset) the fourth element. The caller keeps `name` within
/// [`MAX_CHANNEL_NAME`]; a longer reason is cut.
pub fn encode_channel_request(out: &mut Vec<u8>, message: &ChannelRequestMessage<'_>) {
    let o = &message.options;
    let default = RequestOptions::default();
    let reason = cut(o.reason, MAX_REASON_TEXT);
    let numbers = [
        ("kind", (o.kind != default.kind).then_some(o.kind as u64)),
        ("priority", (o.priority != default.priority).then_some(o.priority.into())),
        ("weight", (o.weight != default.weight).then_some(o.weight.into())),
        ("window", o.window),
        ("since", o.since),
        ("expires_ms", (o.expires_ms != 0).then_some(o.expires_ms.into())),
        ("declined", o.declined.map(u64::from)),
    ];
    let set = numbers.iter().filter(|(_, value)| value.is_some()).count() as u32
        + u32::from(o.latest)
        + u32::from(!reason.is_empty());
    let mut e = Encoder(out);
    e.array(if set > 0 || o.has_map { 4 } else { 3 });
    e.str(message.name);
    e.uint(message.channel.into());
    e.bool(message.is_answer);
    if set == 0 && !o.has_map {
        return;
    }
    e.map(set);
    for (key, value) in numbers {
        if let Some(value) = value {
            e.str(key);
            e.uint(value);
        }
    }
    if o.latest {
        e.str("latest");
        e.bool(true);
    }
    if !reason.is_empty() {
        e.str("reason");
        e.str(reason);
    }
}

/// Appends an AuthenticationRequest. The caller keeps `credential` within [`MAX_CREDENTIAL`].
pub fn encode_authentication_request(out: &mut Vec<u8>, credential: &[u8]) {
    let mut e = Encoder(out);
    e.array(2);
    e.uint(AUTHENTICATION_REQUEST);
    e.bin(credential);
}

/// Appends an AuthenticationResponse; a text longer than [`MAX_REASON_TEXT`] is cut.
pub fn encode_authentication_response(
    out: &mut Vec<u8>,
    accepted: bool,
    reason: Reason,
    text: &str,
) {
    let mut e = Encoder(out);
    e.array(4);
    e.uint(AUTHENTICATION_RESPONSE);
    e.bool(accepted);
    e.uint(reason.0.into());
    e.str(cut(text, MAX_REASON_TEXT));
}

/// Appends an Activity message.
pub fn encode_activity(out: &mut Vec<u8>, activity: Activity) {
    let (level, numbers): (u64, &[u32]) = match activity {
        Activity::Active => (0, &[]),
        Activity::Idle { count } => (1, &[count]),
        Activity::Retiring { count, answers } => (2, &[count, answers]),
    };
    let mut e = Encoder(out);
    e.array(2 + numbers.len() as u32);
    e.uint(ACTIVITY);
    e.uint(level);
    for number in numbers {
        e.uint((*number).into());
    }
}
