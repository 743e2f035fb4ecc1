//! What stands on the wire: parsers and emitters that never panic on any input.
//!
//! | module | what |
//! | --- | --- |
//! | [`codec`] | big-endian integers and varints on borrowed slices |
//! | [`packet`] | long and short packet headers, Retry, VersionList |
//! | [`frame`] | the frames inside a packet's payload |
//! | [`transport`], [`ack`] | bodies of frames on the TRANSPORT channel |
//! | [`control`] | msgpack messages of the CONTROL channel |
//! | [`link_message`] | those of them that stand for TRANSPORT frames on a stream link |
//! | [`params`] | transport parameters, carried by the TLS handshake |
//! | [`ranges`] | sets of ranges: packet numbers, stream bytes |
//! | [`record`] | what a sent packet contained |
//!
//! Called by `handshake`, `channel`, `recovery` and `connection`; knows only `limits`, `ids`,
//! `time`, `error` and the channel kinds of `config`.
//! Parsers borrow from their input and allocate nothing; every rule they enforce is stated in
//! `docs/protocol.md`.

pub mod ack;
pub mod codec;
pub mod control;
pub mod frame;
pub mod link_message;
pub mod packet;
pub mod params;
pub mod ranges;
pub mod record;
pub mod transport;

#[cfg(test)]
mod tests;
