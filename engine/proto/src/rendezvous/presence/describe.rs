//! What a device says of itself.

use super::wire::{check_name, check_service};
use crate::error::ApiError;
use crate::ids::PeerId;
use crate::limits::MAX_DEVICE_ID;
use core::fmt;
use ring::hmac;

/// What kind of device it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum DeviceType {
    /// Not said (0).
    #[default]
    Unspecified,
    /// Desktop computer (1).
    Desktop,
    /// Laptop (2).
    Laptop,
    /// Server (3).
    Server,
    /// Phone (4).
    Phone,
    /// Tablet (5).
    Tablet,
    /// Game console (6).
    Console,
    /// Television or set-top box (7).
    Television,
    /// Headset for virtual or augmented reality (8).
    Headset,
    /// Built into something: camera, speaker, instrument (9).
    Embedded,
    /// A number that this version has no name for.
    Other(u8),
}

impl DeviceType {
    const NAMED: [(Self, &'static str); 10] = [
        (Self::Unspecified, "unspecified"),
        (Self::Desktop, "desktop"),
        (Self::Laptop, "laptop"),
        (Self::Server, "server"),
        (Self::Phone, "phone"),
        (Self::Tablet, "tablet"),
        (Self::Console, "console"),
        (Self::Television, "television"),
        (Self::Headset, "headset"),
        (Self::Embedded, "embedded"),
    ];

    /// The number on the wire.
    pub fn code(self) -> u8 {
        match self {
            Self::Other(code) => code,
            named => Self::NAMED.iter().position(|(t, _)| *t == named).unwrap_or(0) as u8,
        }
    }

    /// What the number on the wire means.
    pub fn from_code(code: u8) -> Self {
        Self::NAMED.get(usize::from(code)).map_or(Self::Other(code), |(t, _)| *t)
    }
}

impl fmt::Display for DeviceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMED.iter().find(|(t, _)| t == self) {
            Some((_, name)) => f.pad(name),
            None => f.pad(&format!("type {}", self.code())),
        }
    }
}

impl core::str::FromStr for DeviceType {
    type Err = ApiError;

    /// The name in small letters.
    fn from_str(text: &str) -> Result<Self, ApiError> {
        let found = Self::NAMED.iter().find(|(_, name)| *name == text);
        found.map(|(t, _)| *t).ok_or(ApiError::InvalidArgument {
            field: "device type",
            why: "must be unspecified, desktop, laptop, server, phone, tablet, console, \
                  television, headset or embedded",
        })
    }
}

/// Whom a device lets in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Mode {
    /// Anybody may connect (0).
    #[default]
    Open,
    /// Only those whom it knows: by key, credential or list (1).
    Known,
    /// It is ready to be paired with a new peer (2).
    Pairing,
    /// It takes nobody at the moment (3).
    Busy,
    /// A number that this version has no name for.
    Other(u8),
}

impl Mode {
    const NAMED: [(Self, &'static str); 4] = [
        (Self::Open, "open"),
        (Self::Known, "known"),
        (Self::Pairing, "pairing"),
        (Self::Busy, "busy"),
    ];

    /// The number on the wire.
    pub fn code(self) -> u8 {
        match self {
            Self::Other(code) => code,
            named => Self::NAMED.iter().position(|(m, _)| *m == named).unwrap_or(0) as u8,
        }
    }

    /// What the number on the wire means.
    pub fn from_code(code: u8) -> Self {
        Self::NAMED.get(usize::from(code)).map_or(Self::Other(code), |(m, _)| *m)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMED.iter().find(|(m, _)| m == self) {
            Some((_, name)) => f.pad(name),
            None => f.pad(&format!("mode {}", self.code())),
        }
    }
}

impl core::str::FromStr for Mode {
    type Err = ApiError;

    /// The name in small letters.
    fn from_str(text: &str) -> Result<Self, ApiError> {
        let found = Self::NAMED.iter().find(|(_, name)| *name == text);
        found.map(|(m, _)| *m).ok_or(ApiError::InvalidArgument {
            field: "mode",
            why: "must be open, known, pairing or busy",
        })
    }
}

/// Which links a device listens on, all at one port number. At least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Links(pub(super) u8);

impl Links {
    /// The datagram link: UDP.
    pub const UDP: Self = Self(1);
    /// The stream link: TLS over TCP.
    pub const TLS: Self = Self(2);

    /// Both of `self` and `other`.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all links of `other` are among these.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// A name of a device that only those are told who know it already: 1 to 64 bytes that the
/// application chooses and hands out, such as a random number of 128 bits.
///
/// On the wire there are only keyed hashes of it. Whoever records them can try guesses, so that an
/// id of fewer than 64 unpredictable bits hides nothing.
#[derive(Clone)]
pub struct DeviceId {
    key: hmac::Key,
}

impl DeviceId {
    /// # Errors
    /// Empty, or longer than 64 bytes.
    pub fn new(id: &[u8]) -> Result<Self, ApiError> {
        if id.is_empty() || id.len() > MAX_DEVICE_ID {
            return Err(ApiError::InvalidArgument {
                field: "device id",
                why: "must have 1 to 64 bytes",
            });
        }
        Ok(Self { key: hmac::Key::new(hmac::HMAC_SHA256, id) })
    }

    /// The first 16 bytes of HMAC-SHA256(id, purpose ‖ parts).
    pub(super) fn hash(&self, purpose: &[u8], parts: &[&[u8]]) -> [u8; 16] {
        let mut mac = hmac::Context::with_key(&self.key);
        mac.update(purpose);
        for part in parts {
            mac.update(part);
        }
        let mut out = [0; 16];
        out.copy_from_slice(&mac.sign().as_ref()[..16]);
        out
    }
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeviceId(..)")
    }
}

/// What a host tells those who ask.
#[derive(Clone, Debug)]
pub struct Announcement {
    /// For people: 1 to 63 bytes of UTF-8 without control characters.
    pub name: String,
    /// Which application it is: 1 to 63 letters, digits, `.`, `-` or `_`.
    pub service: String,
    /// What kind of device it is.
    pub device_type: DeviceType,
    /// Whom it lets in.
    pub mode: Mode,
    /// Which links it listens on.
    pub links: Links,
    /// The port that it listens on, not 0.
    pub port: u16,
    /// The hash of its public key, which its connections will prove.
    pub peer: PeerId,
    /// Lets those who know it find this device among all others.
    pub id: Option<DeviceId>,
}

impl Announcement {
    /// Of an open device that listens on the datagram link.
    pub fn new(
        name: impl Into<String>,
        service: impl Into<String>,
        peer: PeerId,
        port: u16,
    ) -> Self {
        Self {
            name: name.into(),
            service: service.into(),
            device_type: DeviceType::default(),
            mode: Mode::default(),
            links: Links::UDP,
            port,
            peer,
            id: None,
        }
    }

    /// Checks every field; the error names the first one that is unusable.
    pub fn validate(&self) -> Result<(), ApiError> {
        let bad = |field, why| Err(ApiError::InvalidArgument { field, why });
        if !check_name(&self.name) {
            return bad("name", "must have 1 to 63 bytes of UTF-8 without control characters");
        }
        if self.service.is_empty() || !check_service(&self.service) {
            return bad("service", "must have 1 to 63 letters, digits, `.`, `-` or `_`");
        }
        if self.port == 0 {
            return bad("port", "must not be 0");
        }
        if self.links.0 == 0 {
            return bad("links", "must name one");
        }
        Ok(())
    }
}
