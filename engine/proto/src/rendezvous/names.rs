//! Names of clients and applications, and the two roles of a pair.

use crate::limits::MAX_CLIENT_ID;
use core::borrow::Borrow;
use core::fmt;
use core::str::FromStr;
use std::sync::Arc;

/// A name that is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It has no character.
    #[error("is empty")]
    Empty,
    /// It has more than [`MAX_CLIENT_ID`] bytes.
    #[error("is longer than 64 bytes")]
    TooLong,
    /// It has another character than letters, digits and `- . _ ~ : @ +`.
    #[error("has a character other than A-Z a-z 0-9 - . _ ~ : @ +")]
    Character,
}

/// Whether a byte may stand in a name: what needs no escape in URLs, logs and metrics, and leaves
/// `*` to patterns.
pub(super) const fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b':' | b'@' | b'+')
}

/// Whether `name` is a client id.
pub(super) fn is_name(name: &str) -> bool {
    check(name).is_ok()
}

fn check(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        Err(NameError::Empty)
    } else if name.len() > MAX_CLIENT_ID {
        Err(NameError::TooLong)
    } else if !name.bytes().all(is_name_byte) {
        Err(NameError::Character)
    } else {
        Ok(())
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and copies a name.
            ///
            /// # Errors
            /// [`NameError`] says what is wrong with it.
            pub fn new(name: &str) -> Result<Self, NameError> {
                check(name).map(|()| Self(name.into()))
            }

            /// The name.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(s: &str) -> Result<Self, NameError> {
                Self::new(s)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// Who a client is, within its application: 1 to 64 characters of `A-Z a-z 0-9 - . _ ~ : @ +`.
    ClientId
}

name! {
    /// An application: its clients can pair with each other and with nobody else. The same
    /// characters as a [`ClientId`].
    AppId
}

/// The two parts of a pair (design, behaviours §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum PairingRole {
    /// Is told its partner, and looks for it.
    Controller = 0,
    /// May be told its partner; otherwise takes the first controller that pings it.
    Responder = 1,
}

impl PairingRole {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Controller, Self::Responder];

    /// The role that a partner has.
    pub const fn partner(self) -> Self {
        match self {
            Self::Controller => Self::Responder,
            Self::Responder => Self::Controller,
        }
    }

    /// The word for it: `controller` or `responder`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Controller => "controller",
            Self::Responder => "responder",
        }
    }

    /// From its number on the wire.
    pub const fn from_wire(value: u64) -> Option<Self> {
        match value {
            0 => Some(Self::Controller),
            1 => Some(Self::Responder),
            _ => None,
        }
    }
}

impl fmt::Display for PairingRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for PairingRole {
    type Err = &'static str;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|role| role.name() == s)
            .ok_or("is neither controller nor responder")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for good in ["a", "Player-7", "x.y_z~1:2@3+4", &"m".repeat(MAX_CLIENT_ID)] {
            assert_eq!(ClientId::new(good).unwrap().as_str(), good);
            assert_eq!(good.parse::<AppId>().unwrap().to_string(), good);
        }
        assert_eq!(ClientId::new(""), Err(NameError::Empty));
        assert_eq!(ClientId::new(&"m".repeat(MAX_CLIENT_ID + 1)), Err(NameError::TooLong));
        for bad in ["a b", "a*", "a/b", "ä", "a\0", "a\"", "a\n"] {
            assert_eq!(ClientId::new(bad), Err(NameError::Character), "{bad:?}");
        }
    }

    #[test]
    fn roles_have_names_and_numbers() {
        for role in PairingRole::ALL {
            assert_eq!(role.name().parse(), Ok(role));
            assert_eq!(PairingRole::from_wire(role as u64), Some(role));
            assert_eq!(role.partner().partner(), role);
            assert_ne!(role.partner(), role);
        }
        assert_eq!(PairingRole::from_wire(2), None);
        assert!("Controller".parse::<PairingRole>().is_err());
    }
}
