//! The code that two people share: where they meet, what lets them in, and the secret that makes
//! them sure of each other.
//!
//! `tc1.SECRET.FINGERPRINT.SOURCE.TOKEN`: the first two and SOURCE (`host:port`) in base64url
//! without padding (RFC 4648 §5), the token as it is. The event source knows the token, but never
//! the secret: client ids say nothing about it, and what is said is sealed with a key made of it.

use crate::address::Target;
use crate::cli::EVENT_SOURCE_PORT;
use crate::exit::Failure;
use crate::hex;
use crate::keygen::random;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use std::fmt;
use std::str::FromStr;
use trunkline::PeerId;
use trunkline::rendezvous::{AccessToken, ClientId};

const PREFIX: &str = "tc1";
const SECRET: usize = 16;
/// Hexadecimal digits of the name that both client ids begin with.
const ROOM_DIGITS: usize = 20;
/// Longest code that is read.
const MAX_CODE: usize = 2048;
/// What sealing adds.
pub const SEAL_OVERHEAD: usize = NONCE_LEN + 16;

/// The two places of a conversation. Who comes first waits as host; when another comes, it takes
/// that place, and the first calls it as guest. So both can type the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Waits to be called: the responder.
    Host,
    /// Calls: the controller.
    Guest,
}

impl Place {
    /// That of the other one.
    pub const fn other(self) -> Self {
        match self {
            Self::Host => Self::Guest,
            Self::Guest => Self::Host,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Guest => "guest",
        }
    }
}

/// A code.
#[derive(Clone, PartialEq, Eq)]
pub struct Code {
    secret: [u8; SECRET],
    /// Key of the event source's certificate.
    pub fingerprint: PeerId,
    /// Address of the event source.
    pub source: Target,
    /// Lets both in.
    pub token: AccessToken,
}

/// A secret to make a code with, and the name of its room.
pub struct Draft {
    secret: [u8; SECRET],
}

impl Draft {
    /// A new one.
    pub fn new() -> Result<Self, Failure> {
        let mut secret = [0; SECRET];
        random(&mut secret)?;
        Ok(Self { secret })
    }

    /// What the client ids of both begin with.
    pub fn room(&self) -> String {
        room(&self.secret)
    }

    /// The code.
    pub fn finish(self, source: Target, fingerprint: PeerId, token: AccessToken) -> Code {
        Code { secret: self.secret, fingerprint, source, token }
    }
}

fn derive(secret: &[u8; SECRET], what: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), what)
}

fn room(secret: &[u8; SECRET]) -> String {
    let tag = derive(secret, b"trunkline chat room");
    hex::encode(&tag.as_ref()[..ROOM_DIGITS / 2])
}

impl Code {
    /// The client id of a place.
    pub fn client(&self, place: Place) -> Result<ClientId, Failure> {
        ClientId::new(&format!("{}.{}", room(&self.secret), place.name()))
            .map_err(|e| Failure::usage(format!("the code's client id {e}")))
    }

    /// The key that seals what is said.
    pub fn seal(&self) -> Result<Seal, Failure> {
        let tag = derive(&self.secret, b"trunkline chat seal");
        UnboundKey::new(&CHACHA20_POLY1305, tag.as_ref())
            .map(|key| Seal(LessSafeKey::new(key)))
            .map_err(|_| Failure::local("the code's key is not usable"))
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (secret, fingerprint) = (BASE64.encode(self.secret), BASE64.encode(self.fingerprint.0));
        let source = BASE64.encode(self.source.key());
        write!(f, "{PREFIX}.{secret}.{fingerprint}.{source}.{}", self.token.as_str())
    }
}

/// A code is as good as a password: it is not shown.
impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Code")
    }
}

impl FromStr for Code {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let bad = |why: &str| format!("not a code of chat: {why}");
        let s = s.trim();
        if s.len() > MAX_CODE {
            return Err(bad("it is too long"));
        }
        let mut parts = s.splitn(5, '.');
        if parts.next() != Some(PREFIX) {
            return Err(bad("it does not begin with tc1"));
        }
        let mut bytes = |what: &str| {
            let part = parts.next().ok_or_else(|| bad("it is cut off"))?;
            BASE64.decode(part).map_err(|_| bad(what))
        };
        let secret = bytes("its secret is damaged")?.try_into();
        let fingerprint = bytes("its fingerprint is damaged")?.try_into();
        let source = bytes("its address is damaged")?;
        let source = String::from_utf8(source).map_err(|_| bad("its address is damaged"))?;
        let token = parts.next().ok_or_else(|| bad("it is cut off"))?;
        Ok(Self {
            secret: secret.map_err(|_| bad("its secret is damaged"))?,
            fingerprint: PeerId(fingerprint.map_err(|_| bad("its fingerprint is damaged"))?),
            source: Target::parse(&source, EVENT_SOURCE_PORT).map_err(|e| bad(&e.text))?,
            token: AccessToken::new(token).map_err(|e| bad(&e.to_string()))?,
        })
    }
}

/// Seals and opens: `nonce, ciphertext, tag`, for one place. Nonces are random, 96 bits.
pub struct Seal(LessSafeKey);

impl Seal {
    /// Seals what somebody in `place` says; `None` when the system gives no random bytes.
    pub fn seal(&self, place: Place, plain: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        random(&mut nonce).ok()?;
        let mut text = plain.to_vec();
        let (aad, iv) = (Aad::from(place.name()), Nonce::assume_unique_for_key(nonce));
        self.0.seal_in_place_append_tag(iv, aad, &mut text).ok()?;
        Some([&nonce[..], &text].concat())
    }

    /// Opens what somebody in `place` said; `None` when it was not said there.
    pub fn open(&self, place: Place, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, text) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut text = text.to_vec();
        let (aad, iv) = (Aad::from(place.name()), Nonce::assume_unique_for_key(*nonce));
        let length = self.0.open_in_place(iv, aad, &mut text).ok()?.len();
        text.truncate(length);
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code() -> Code {
        let source = Target::parse("Example.org", EVENT_SOURCE_PORT).unwrap();
        let token = AccessToken::new("tk1.k1.payload.mac").unwrap();
        Draft::new().unwrap().finish(source, PeerId([7; 32]), token)
    }

    #[test]
    fn a_code_is_read_as_it_was_written() {
        let code = code();
        let text = code.to_string();
        assert!(text.starts_with("tc1.") && text.ends_with(".tk1.k1.payload.mac"), "{text}");
        let read: Code = format!("  {text}\n").parse().unwrap();
        assert!(read == code && read.source.key() == "example.org:7472");
        assert_ne!(code.client(Place::Host).unwrap(), code.client(Place::Guest).unwrap());
        assert!(!format!("{code:?}").contains("tk1"));
        let room = read.client(Place::Host).unwrap().to_string();
        assert!(!text.contains(&room[..ROOM_DIGITS]), "the room tells nothing of the secret");
    }

    #[test]
    fn damaged_codes_are_refused() {
        let text = code().to_string();
        let parts: Vec<&str> = text.split('.').collect();
        for (at, with) in [(0, "tc2"), (1, "AAAA"), (1, "!"), (2, "AAAA"), (3, "_w"), (3, "")] {
            let mut parts = parts.clone();
            parts[at] = with;
            assert!(parts.join(".").parse::<Code>().is_err(), "{at} {with}");
        }
        for end in 0..4 {
            assert!(parts[..end].join(".").parse::<Code>().is_err());
        }
        assert!("".parse::<Code>().is_err() && "a".repeat(5000).parse::<Code>().is_err());
    }

    #[test]
    fn only_what_was_said_there_with_the_secret_opens() {
        let (one, other) = (code().seal().unwrap(), code().seal().unwrap());
        let sealed = one.seal(Place::Host, b"hello").unwrap();
        assert_eq!(sealed.len(), 5 + SEAL_OVERHEAD);
        assert_eq!(one.open(Place::Host, &sealed).unwrap(), b"hello");
        assert_eq!(one.open(Place::Guest, &sealed), None, "nothing can be sent back");
        assert_eq!(other.open(Place::Host, &sealed), None);
        for at in 0..sealed.len() {
            let mut spoiled = sealed.clone();
            spoiled[at] ^= 1;
            assert_eq!(one.open(Place::Host, &spoiled), None);
            assert_eq!(one.open(Place::Host, &sealed[..at]), None);
        }
    }
}
