//! A client connects: its TCP connections, and the race where it tries a stream beside the datagram
//! link. The first that proves the host is kept.

use super::{StreamLink, StreamSide};
use crate::channel::Framing;
use crate::connection::{Connection, Path};
use std::net::{IpAddr, SocketAddr};

impl Connection {
    /// Where the stream goes, before it is connected.
    pub(crate) fn stream_target(&self) -> Option<SocketAddr> {
        self.stream.as_ref().map(|link| link.remote)
    }

    /// The same, all addresses, once.
    pub(crate) fn take_stream_targets(&mut self) -> Vec<SocketAddr> {
        self.stream.as_mut().map(|link| core::mem::take(&mut link.targets)).unwrap_or_default()
    }

    /// The TCP connection stands, between these addresses.
    pub(crate) fn stream_connected(&mut self, remote: SocketAddr, local: Option<IpAddr>) {
        let Some(link) = &mut self.stream else { return };
        (link.remote, link.local) = (remote, local);
        if !link.racing {
            self.path = Path::new(self.path.socket, remote, local, true);
        }
    }

    /// Client: tries a stream beside the datagram link, which has begun.
    pub(crate) fn race(&mut self, side: StreamSide) {
        self.stream = Some(StreamLink::new(side, true));
    }

    /// Whether both links are still tried.
    pub(in crate::connection) fn is_racing(&self) -> bool {
        self.stream.as_ref().is_some_and(|link| link.racing)
    }

    /// The stream is out of the race. Whether there was one.
    pub(in crate::connection) fn lose_stream(&mut self) -> bool {
        let racing = self.is_racing();
        if racing {
            self.stream = None;
            self.stream_lost = true;
        }
        racing
    }

    /// The datagram link is out of the race. Whether there was one.
    pub(in crate::connection) fn lose_datagrams(&mut self) -> bool {
        let Some(link) = self.stream.as_mut().filter(|link| link.racing) else { return false };
        link.racing = false;
        self.path = Path::new(0, link.remote, link.local, true);
        self.handshake = None;
        self.mux.set_framing(Framing::Stream);
        true
    }

    /// Once, when a stream was given up and its socket is to be closed.
    pub(crate) const fn take_stream_lost(&mut self) -> bool {
        core::mem::replace(&mut self.stream_lost, false)
    }
}
