//! Names of things: connection ids on the wire, handles and keys in the API.

use crate::limits::CONNECTION_ID_LEN;
use core::fmt;

/// A connection id as it stands in a packet: 8 opaque bytes chosen by the receiver of the packet.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct ConnectionId(pub [u8; CONNECTION_ID_LEN]);

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for b in self.0 {
            write!(f, "{b:02x}")?;
        }
        Ok(())
    }
}

/// A connection of one endpoint: slot and generation. A stale handle never names another
/// connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnHandle {
    /// Slot in the endpoint's table.
    pub slot: u32,
    /// Counts the lives of the slot; never 0.
    pub generation: u32,
}

/// A channel of one connection: its slot, and its life, which counts the channels that the
/// connection ever had. A stale key never names another channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelKey {
    /// Slot in the connection's table.
    pub slot: u32,
    /// Life number, unique within the connection; never 0.
    pub life: u32,
}

/// Which side of a connection we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Sent the ConnectionRequest.
    Client,
    /// Answered it.
    Host,
}

impl Role {
    /// The other side.
    pub const fn peer(self) -> Self {
        match self {
            Self::Client => Self::Host,
            Self::Host => Self::Client,
        }
    }
}

/// What carries a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Link {
    /// Packets of our own in UDP datagrams.
    #[default]
    Datagram = 0,
    /// TLS over TCP.
    Stream = 1,
}

/// What a client connects over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[non_exhaustive]
pub enum ConnectLink {
    /// Packets of our own in UDP datagrams.
    #[default]
    Datagram = 0,
    /// TLS over TCP.
    Stream = 1,
    /// TLS over TCP, the plain protocol.
    PlainStream = 2,
    /// UDP and TLS over TCP side by side: the first that proves the host is kept.
    Auto = 3,
}

impl ConnectLink {
    /// What carries the connection; with [`Self::Auto`] before that is decided.
    pub const fn link(self) -> Link {
        match self {
            Self::Datagram | Self::Auto => Link::Datagram,
            Self::Stream | Self::PlainStream => Link::Stream,
        }
    }
}

/// Who a peer is: SHA-256 of its subject public key info.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub [u8; 32]);

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for b in self.0 {
            write!(f, "{b:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl core::str::FromStr for PeerId {
    type Err = crate::error::ApiError;

    /// 64 hexadecimal digits; colons between bytes are allowed.
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let bad = |why| crate::error::ApiError::InvalidArgument { field: "fingerprint", why };
        let mut out = [0u8; 32];
        let mut digits = s.bytes().filter(|b| *b != b':');
        for byte in &mut out {
            for _ in 0..2 {
                let c = digits.next().ok_or(bad("needs 64 hexadecimal digits"))?;
                let d = (c as char)
                    .to_digit(16)
                    .ok_or(bad("has a character that is not hexadecimal"))?;
                *byte = (*byte << 4) | d as u8;
            }
        }
        if digits.next().is_some() {
            return Err(bad("has more than 64 hexadecimal digits"));
        }
        Ok(Self(out))
    }
}
