//! A view of every packet in the clear, for captures: what was sealed, what was opened, and where
//! it went or came from.
//!
//! The packets are told where their keys are: whoever seals or opens has one more branch, which is
//! never taken unless an endpoint is given an [`Observer`]
//! ([`EndpointConfig::observer`](crate::endpoint::EndpointConfig::observer)).

use crate::endpoint::{RxMeta, Transmit};
use crate::ids::ConnHandle;
use core::fmt;
use std::sync::Arc;

/// A packet in the clear, its tag left out.
#[derive(Clone, Copy, Debug)]
pub struct ClearPacket<'a> {
    /// The connection it belongs to.
    pub conn: ConnHandle,
    /// Its full number.
    pub number: u64,
    /// Its header as it stands on the wire.
    pub header: &'a [u8],
    /// Its frames.
    pub payload: &'a [u8],
}

/// Sees every packet of an endpoint in the clear. Called on the thread of the endpoint, in the
/// middle of its work: it must not take long, and never call the endpoint.
pub trait Observer: fmt::Debug + Send + Sync {
    /// A datagram arrived here; the packets told with [`opened`](Self::opened) from now on came
    /// this way.
    fn receiving(&self, meta: &RxMeta);

    /// A packet was opened. Nothing of it has been looked at yet.
    fn opened(&self, packet: &ClearPacket<'_>);

    /// A packet was written.
    fn sealed(&self, packet: &ClearPacket<'_>);

    /// The packets told with [`sealed`](Self::sealed) since the last call go there.
    fn sent(&self, transmit: &Transmit);
}

/// The observer of one connection's keys.
#[derive(Clone, Debug)]
pub(crate) struct Tap {
    observer: Arc<dyn Observer>,
    conn: ConnHandle,
}

impl Tap {
    pub(crate) const fn new(observer: Arc<dyn Observer>, conn: ConnHandle) -> Self {
        Self { observer, conn }
    }

    #[cold]
    pub(crate) fn opened(&self, number: u64, header: &[u8], payload: &[u8]) {
        self.observer.opened(&ClearPacket { conn: self.conn, number, header, payload });
    }

    #[cold]
    pub(crate) fn sealed(&self, number: u64, header: &[u8], payload: &[u8]) {
        self.observer.sealed(&ClearPacket { conn: self.conn, number, header, payload });
    }
}
