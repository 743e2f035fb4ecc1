//! TLS 1.3 over a stream: rustls' record layer behind the few calls that a stream link needs.

use super::tls::{EXPORTER_LABEL, peer_of, suite_name, suite_number};
use crate::error::{CloseReason, Reason};
use crate::ids::PeerId;
use crate::limits::{ALPN, ALPN_PLAIN};
use core::fmt;
use rustls::{Connection, Error, HandshakeKind, ProtocolVersion};
use std::io::{BufRead, Write};

/// One side of a TLS connection. Bytes in, bytes out.
pub(crate) struct StreamTls {
    tls: Connection,
    closed: bool,
}

/// What TLS has proved.
pub(crate) struct StreamPeer {
    /// `trunkline/1` was agreed on; otherwise the plain protocol.
    pub(crate) is_native: bool,
    pub(crate) id: Option<PeerId>,
    pub(crate) suite: &'static str,
    pub(crate) suite_number: u16,
    /// 32 bytes that only the two sides know.
    pub(crate) exporter: [u8; 32],
    pub(crate) resumed: bool,
    pub(crate) server_name: Option<String>,
}

impl fmt::Debug for StreamTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamTls").field("closed", &self.closed).finish_non_exhaustive()
    }
}

impl StreamTls {
    pub(super) fn new(tls: impl Into<Connection>) -> Self {
        let mut tls = tls.into();
        // Whoever seals takes everything out before it seals more.
        tls.set_buffer_limit(None);
        Self { tls, closed: false }
    }

    /// Takes some of `bytes` from their front; `false` when nothing more will come.
    pub(crate) fn read(&mut self, bytes: &mut &[u8]) -> Result<bool, Error> {
        if bytes.is_empty() || self.closed {
            return Ok(false);
        }
        let taken = self.tls.read_tls(bytes).map_err(|e| Error::General(e.to_string()))?;
        if taken == 0 {
            return Ok(false);
        }
        let state = self.tls.process_new_packets()?;
        self.closed |= state.peer_has_closed();
        Ok(true)
    }

    /// Hands over everything that was decrypted.
    pub(crate) fn plaintext(&mut self, mut take: impl FnMut(&[u8])) {
        loop {
            let mut reader = self.tls.reader();
            // Nothing there, or the end: both mean that nothing can be handed over now.
            let Ok(chunk) = reader.fill_buf() else { return };
            if chunk.is_empty() {
                return;
            }
            let len = chunk.len();
            take(chunk);
            reader.consume(len);
        }
    }

    /// Encrypts `plaintext`; [`Self::write`] has it.
    pub(crate) fn seal(&mut self, plaintext: &[u8]) {
        // A writer without a limit takes everything.
        let _ = self.tls.writer().write_all(plaintext);
    }

    /// Writes what waits into `out`; gives how many bytes.
    pub(crate) fn write(&mut self, out: &mut [u8]) -> usize {
        let all = out.len();
        let mut room = out;
        while self.tls.wants_write() && !room.is_empty() {
            if !matches!(self.tls.write_tls(&mut room), Ok(1..)) {
                break;
            }
        }
        all - room.len()
    }

    /// Whether [`Self::write`] has something.
    pub(crate) fn wants_write(&self) -> bool {
        self.tls.wants_write()
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    /// Whether the peer has said that nothing more will come.
    pub(crate) const fn is_closed_by_peer(&self) -> bool {
        self.closed
    }

    /// Says that nothing more will come.
    pub(crate) fn close_notify(&mut self) {
        self.tls.send_close_notify();
    }

    /// What the finished handshake has proved.
    pub(crate) fn peer(&self) -> Result<StreamPeer, CloseReason> {
        debug_assert_eq!(self.tls.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        let id = peer_of(&self.tls)?;
        let server_name = match &self.tls {
            Connection::Server(server) => server.server_name().map(str::to_owned),
            Connection::Client(_) => None,
        };
        let protocol = self.tls.alpn_protocol();
        debug_assert!(protocol.is_none_or(|p| p == ALPN || p == ALPN_PLAIN));
        let exporter = self
            .tls
            .export_keying_material([0; 32], EXPORTER_LABEL, None)
            .map_err(|_| CloseReason::new(Reason::INTERNAL, "no exporter after the handshake"))?;
        Ok(StreamPeer {
            suite_number: suite_number(&self.tls),
            exporter,
            is_native: protocol == Some(ALPN),
            id,
            suite: suite_name(&self.tls),
            resumed: self.tls.handshake_kind() == Some(HandshakeKind::Resumed),
            server_name,
        })
    }
}
