//! The handshake: who the peer is and how a connection gets its keys.
//!
//! [`Handshake`] is the machine of one attempt, client or host: whole long packets in, datagrams
//! out, and [`Established`] once. TLS 1.3 (through rustls' `quic` interface, RFC 9001) does the
//! cryptography; this module carries its byte stream over a network that loses, reorders,
//! duplicates and forges.
//!
//! | file | what |
//! | --- | --- |
//! | `machine`, `outcome` | the public face, timers and endings; what goes in and comes out |
//! | `receive`, `transmit` | packets in and out |
//! | `client`, `host` | one type for each awaited message of each role |
//! | `state` | what a role waits for, as the application sees it, with its table |
//! | `level`, `crypto_stream` | packet number space and byte stream of one encryption level |
//! | `retry` | answers that a host gives without keeping state |
//! | `stream_tls` | TLS as a stream link needs it |
//! | `tls`, `identity`, `trust` | settings, built once and shared |
//!
//! What an unauthenticated packet can do is bounded by one rule: it is dropped, or it is a hint
//! that counts only when nothing better arrives. Initial packets are sealed with keys that anybody
//! on the path can derive, so everything at that level is such a hint: a client whose TLS stumbles
//! over Initial bytes starts again with a fresh ClientHello, acknowledgements there only save
//! retransmissions, and a CLOSE there is believed only after a while without progress.
//!
//! Called by `endpoint` and `connection`; knows nothing of channels.

mod client;
mod crypto_stream;
mod host;
mod level;
mod machine;
mod outcome;
mod receive;
mod retry;
mod state;
mod stream_tls;
mod transmit;

pub mod identity;
pub mod tls;
pub mod trust;

#[cfg(test)]
pub(crate) mod test_support;
#[cfg(test)]
mod tests;

pub use identity::{Identity, peer_id_of};
pub use machine::Handshake;
pub use outcome::{Dropped, Established, HandshakeConfig, HandshakeCounters, Receipt};
pub use retry::{write_refusal, write_retry, write_version_list};
pub use state::{HandshakeEvent, HandshakeFacts, HandshakeFailure, HandshakeState};
pub(crate) use stream_tls::StreamTls;
pub use tls::{ClientTls, HostTls, KeyLog, TlsFingerprint};
pub use trust::{ClientAuth, Trust};
