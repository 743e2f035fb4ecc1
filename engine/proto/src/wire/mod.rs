//! What stands on the wire: parsers and emitters that never panic on any input.
//!
//! Called by `handshake`, `channel`, `recovery` and `connection`; knows nothing above `limits`.

pub mod record;
