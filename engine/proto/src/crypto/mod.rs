//! Packet protection and secrets: 1-RTT keys and their update, the replay window, connection ids,
//! tokens, credentials, and the generator that all of our randomness comes from.
//!
//! Called by `handshake`, `connection` and `endpoint`; knows nothing of frames or connections.

pub mod credential;
pub mod keys;
pub mod replay;
pub mod rng;
mod route;
pub mod token;

pub use credential::{Credential, CredentialError, CredentialIssuer, CredentialVerifier, Grant};
pub use keys::{DataKeys, OpenError, Opened, SealError};
pub use replay::ReplayWindow;
pub use rng::Rng;
pub(crate) use route::route_key;
pub use token::{ConnIdCodec, IdParts, ResetTokens, RetryOrigin, RetryTokens, shard_of};
