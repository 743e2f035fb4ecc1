//! The event: one message of the `events` channel, a msgpack array.
//!
//! `[type, subtype, from, to, role, sent, received, buffered, body]`, as `docs/pairing.md` gives
//! it. Elements behind the ninth are ignored, so that later versions can add some. Nothing is
//! allocated before all of an event is known to be within its bounds. Errors name the field.

use super::names::{ClientId, PairingRole};
use crate::error::Reason;
use crate::limits::{MAX_CLIENT_ID, MAX_EVENT, MAX_EVENT_BODY};
use core::fmt;
use rmp::decode::{Bytes, read_array_len, read_bin_len, read_bool, read_int, read_str_len};
use rmp::encode::{write_array_len, write_bin, write_bool, write_nil, write_str, write_uint};
use std::sync::Arc;

/// Elements that every event has.
const ELEMENTS: u32 = 9;

/// What an event is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum EventType {
    /// Carries something of the application.
    Application = 0,
    /// Ready to interact with the partner.
    Ping = 1,
    /// The sender goes passive.
    Inactive = 2,
    /// The sender, a controller, has another partner now, or none.
    Unassign = 3,
    /// Answers a ping that led nowhere; the subtype is a [`Reject`].
    Reject = 4,
    /// Carries what two partners tell each other to find a route between them.
    Route = 5,
}

impl EventType {
    /// All types.
    pub const ALL: [Self; 6] =
        [Self::Application, Self::Ping, Self::Inactive, Self::Unassign, Self::Reject, Self::Route];

    /// From its number on the wire.
    pub fn from_wire(value: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|t| *t as u64 == value)
    }

    /// The word for it in logs and documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::Ping => "ping",
            Self::Inactive => "inactive",
            Self::Unassign => "unassign",
            Self::Reject => "reject",
            Self::Route => "route",
        }
    }

    /// Whether it carries something of the users of a pairing, rather than of the pairing itself.
    pub const fn has_body(self) -> bool {
        matches!(self, Self::Application | Self::Route)
    }
}

/// Why a ping led nowhere: the subtype of a `reject`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reject {
    /// The client that was pinged has another partner.
    AssignedToOther,
    /// The client that was pinged is a controller that has no partner.
    NotPaired,
    /// Event source: the client that was pinged belongs to another application.
    AppIdMismatch,
    /// Event source: the client that was pinged has the role of the one that pings.
    InvalidPartnerRole,
    /// A reason that we do not know.
    Other(u16),
}

impl Reject {
    /// The reasons that have a name.
    pub const ALL: [Self; 4] =
        [Self::AssignedToOther, Self::NotPaired, Self::AppIdMismatch, Self::InvalidPartnerRole];

    /// Its number on the wire.
    pub const fn to_wire(self) -> u16 {
        match self {
            Self::AssignedToOther => 1,
            Self::NotPaired => 2,
            Self::AppIdMismatch => 3,
            Self::InvalidPartnerRole => 4,
            Self::Other(value) => value,
        }
    }

    /// From its number on the wire.
    pub fn from_wire(value: u16) -> Self {
        Self::ALL.into_iter().find(|r| r.to_wire() == value).unwrap_or(Self::Other(value))
    }

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AssignedToOther => "assigned_to_other",
            Self::NotPaired => "not_paired",
            Self::AppIdMismatch => "app_id_mismatch",
            Self::InvalidPartnerRole => "invalid_partner_role",
            Self::Other(_) => "other",
        }
    }
}

/// Why the event source ends a client's connection: the code of its close, or of its refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Abort {
    /// The token does not allow the role.
    InvalidRole = 1101,
    /// The client id is malformed, or the token does not allow it.
    InvalidClientId = 1102,
    /// The token is malformed, forged, or has expired, or its key is unknown.
    InvalidAccessToken = 1103,
    /// The event source does not serve this application, or does not go on serving this client.
    NotAuthorized = 1104,
    /// A newer connection has the same client id.
    ReleasedByOther = 1105,
    /// The client does not take what is sent to it, or never opened its channel.
    ClientNotAlive = 1106,
}

impl Abort {
    /// All reasons.
    pub const ALL: [Self; 6] = [
        Self::InvalidRole,
        Self::InvalidClientId,
        Self::InvalidAccessToken,
        Self::NotAuthorized,
        Self::ReleasedByOther,
        Self::ClientNotAlive,
    ];

    /// The close reason that carries it.
    pub const fn reason(self) -> Reason {
        Reason(self as u32)
    }

    /// From a close reason; `None` when it is not an abort, and the client may come back.
    pub fn from_reason(reason: Reason) -> Option<Self> {
        Self::ALL.into_iter().find(|a| a.reason() == reason)
    }

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InvalidRole => "invalid_role",
            Self::InvalidClientId => "invalid_client_id",
            Self::InvalidAccessToken => "invalid_access_token",
            Self::NotAuthorized => "not_authorized",
            Self::ReleasedByOther => "released_by_other",
            Self::ClientNotAlive => "client_not_alive",
        }
    }
}

macro_rules! display_name {
    ($($type:ty),*) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    )*};
}
display_name!(EventType, Reject, Abort);

/// Bytes that are not an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// A field is not what it has to be.
    #[error("event: {0}")]
    Malformed(&'static str),
    /// The body is longer than [`MAX_EVENT_BODY`], or all of it longer than [`MAX_EVENT`].
    #[error("event is too large")]
    TooLarge,
    /// A type that we do not know.
    #[error("event of unknown type {0}")]
    UnknownType(u64),
}

/// An event that lies in a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventRef<'a> {
    /// What it is for.
    pub kind: EventType,
    /// Of a reject: why. Otherwise the users' own.
    pub subtype: u16,
    /// Who sends it. Empty, or the client's own id, on the way to the event source, which puts
    /// the truth in.
    pub from: &'a str,
    /// Whom it is for.
    pub to: &'a str,
    /// The sender's role; the event source puts it in.
    pub role: Option<PairingRole>,
    /// Counts the events that the sender has sent in its life, this one included.
    pub sent: u64,
    /// How many events of its partner the sender has received since it has this partner. Of a
    /// reject: the send count of the ping that it answers.
    pub received: u64,
    /// It may have waited for the pairing.
    pub buffered: bool,
    /// At most [`MAX_EVENT_BODY`] bytes.
    pub body: &'a [u8],
}

impl EventRef<'_> {
    /// A copy that stands alone.
    ///
    /// # Errors
    /// A recipient or a sender (unless it is empty) that is not a name.
    pub fn to_owned(&self) -> Result<Event, EventError> {
        let from = match self.from {
            "" => None,
            from => Some(ClientId::new(from).map_err(|_| bad("from is not a client id"))?),
        };
        Ok(Event {
            kind: self.kind,
            subtype: self.subtype,
            from,
            to: ClientId::new(self.to).map_err(|_| bad("to is not a client id"))?,
            role: self.role,
            sent: self.sent,
            received: self.received,
            buffered: self.buffered,
            body: self.body.into(),
        })
    }
}

/// An event that owns what it says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Event {
    /// As [`EventRef::kind`].
    pub kind: EventType,
    /// As [`EventRef::subtype`].
    pub subtype: u16,
    /// As [`EventRef::from`].
    pub from: Option<ClientId>,
    /// As [`EventRef::to`].
    pub to: ClientId,
    /// As [`EventRef::role`].
    pub role: Option<PairingRole>,
    /// As [`EventRef::sent`].
    pub sent: u64,
    /// As [`EventRef::received`].
    pub received: u64,
    /// As [`EventRef::buffered`].
    pub buffered: bool,
    /// As [`EventRef::body`].
    pub body: Arc<[u8]>,
}

impl Event {
    /// The event, borrowed.
    pub fn as_ref(&self) -> EventRef<'_> {
        EventRef {
            kind: self.kind,
            subtype: self.subtype,
            from: self.from.as_ref().map_or("", ClientId::as_str),
            to: self.to.as_str(),
            role: self.role,
            sent: self.sent,
            received: self.received,
            buffered: self.buffered,
            body: &self.body,
        }
    }

    /// What goes on the wire.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.body.len());
        encode(&mut out, &self.as_ref());
        out
    }
}

const fn bad(why: &'static str) -> EventError {
    EventError::Malformed(why)
}

/// Appends an event. The caller keeps names and body within their bounds.
pub fn encode(out: &mut Vec<u8>, event: &EventRef<'_>) {
    // Writing to a vector never fails.
    let _ = write_array_len(out, ELEMENTS);
    let _ = write_uint(out, event.kind as u64);
    let _ = write_uint(out, event.subtype.into());
    let _ = write_str(out, event.from);
    let _ = write_str(out, event.to);
    if let Some(role) = event.role {
        let _ = write_uint(out, role as u64);
    } else {
        let _ = write_nil(out);
    }
    let _ = write_uint(out, event.sent);
    let _ = write_uint(out, event.received);
    let _ = write_bool(out, event.buffered);
    let _ = write_bin(out, event.body);
}

/// Reads one event, which is all of `message`.
///
/// # Errors
/// [`EventError`]: it is too large, malformed, or of a type that we do not know.
pub fn decode(message: &[u8]) -> Result<EventRef<'_>, EventError> {
    if message.len() > MAX_EVENT {
        return Err(EventError::TooLarge);
    }
    let mut rd = Bytes::new(message);
    let count = read_array_len(&mut rd).map_err(|_| bad("it is not an array"))?;
    if count < ELEMENTS {
        return Err(bad("it has fewer than 9 elements"));
    }
    let kind = read_int::<u64, _>(&mut rd).map_err(|_| bad("type is not an unsigned integer"))?;
    let kind = EventType::from_wire(kind).ok_or(EventError::UnknownType(kind))?;
    let why = "subtype is not an unsigned 16-bit integer";
    let subtype = read_int::<u16, _>(&mut rd).map_err(|_| bad(why))?;
    let from = name(&mut rd, "from is not a string of at most 64 bytes")?;
    let to = name(&mut rd, "to is not a string of at most 64 bytes")?;
    let role = role(&mut rd)?;
    let sent = read_int::<u64, _>(&mut rd).map_err(|_| bad("sent is not an unsigned integer"))?;
    let received =
        read_int::<u64, _>(&mut rd).map_err(|_| bad("received is not an unsigned integer"))?;
    let buffered = read_bool(&mut rd).map_err(|_| bad("buffered is not a boolean"))?;
    let length = read_bin_len(&mut rd).map_err(|_| bad("body is not binary"))? as usize;
    if length > MAX_EVENT_BODY {
        return Err(EventError::TooLarge);
    }
    let body = take(&mut rd, length).ok_or(bad("body is truncated"))?;
    if count == ELEMENTS && !rd.remaining_slice().is_empty() {
        return Err(bad("it has bytes behind its end"));
    }
    if !kind.has_body() && !body.is_empty() {
        return Err(bad("its type has no body"));
    }
    Ok(EventRef { kind, subtype, from, to, role, sent, received, buffered, body })
}

/// The next `length` bytes.
pub(super) fn take<'a>(rd: &mut Bytes<'a>, length: usize) -> Option<&'a [u8]> {
    let (head, rest) = rd.remaining_slice().split_at_checked(length)?;
    *rd = Bytes::new(rest);
    Some(head)
}

/// A string.
pub(super) fn text<'a>(rd: &mut Bytes<'a>) -> Option<&'a str> {
    let length = read_str_len(rd).ok()? as usize;
    core::str::from_utf8(take(rd, length)?).ok()
}

fn name<'a>(rd: &mut Bytes<'a>, why: &'static str) -> Result<&'a str, EventError> {
    text(rd).filter(|name| name.len() <= MAX_CLIENT_ID).ok_or(bad(why))
}

fn role(rd: &mut Bytes<'_>) -> Result<Option<PairingRole>, EventError> {
    const NIL: u8 = 0xc0;
    const WHY: &str = "role is neither nil nor 0 nor 1";
    if rd.remaining_slice().first() == Some(&NIL) {
        take(rd, 1);
        return Ok(None);
    }
    let value = read_int::<u64, _>(rd).map_err(|_| bad(WHY))?;
    PairingRole::from_wire(value).map(Some).ok_or(bad(WHY))
}

#[cfg(test)]
mod tests;
