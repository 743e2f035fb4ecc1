//! Events that arise in application calls, where no sink is at hand: kept until the next call that
//! has one.

use crate::error::CloseReason;
use crate::event::{ChannelEnd, Sink};
use crate::ids::{ChannelKey, ConnHandle};
use crate::status::Status;
use std::net::SocketAddr;

/// Events for which room is kept.
const KEPT: usize = 16;

#[derive(Debug)]
enum Event {
    Status(ConnHandle, Status, Status, Option<CloseReason>),
    Ready(ConnHandle, ChannelKey),
    Closed(ConnHandle, ChannelKey, ChannelEnd),
    Writable(ConnHandle, ChannelKey),
    Receipt(ConnHandle, ChannelKey, u64),
    Path(ConnHandle, SocketAddr, bool),
    Superseded(ConnHandle, ConnHandle),
}

/// A sink that keeps what it is told. Data never arises in application calls.
#[derive(Debug, Default)]
pub(crate) struct Deferred {
    events: Vec<Event>,
}

impl Deferred {
    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The application has closed a connection: what its channels had to tell is of no interest.
    pub(crate) fn forget_channels(&mut self, conn: ConnHandle) {
        self.events.retain(|event| match event {
            Event::Status(..) | Event::Path(..) | Event::Superseded(..) => true,
            Event::Ready(of, _)
            | Event::Closed(of, ..)
            | Event::Writable(of, _)
            | Event::Receipt(of, ..) => *of != conn,
        });
    }

    /// Tells everything to `sink`, in order.
    pub(crate) fn replay<S: Sink>(&mut self, sink: &mut S) {
        for event in self.events.drain(..) {
            match event {
                Event::Status(conn, old, new, reason) => {
                    sink.status(conn, old, new, reason.as_ref());
                }
                Event::Ready(conn, channel) => sink.channel_ready(conn, channel),
                Event::Closed(conn, channel, end) => sink.channel_closed(conn, channel, &end),
                Event::Writable(conn, channel) => sink.writable(conn, channel),
                Event::Receipt(conn, channel, token) => sink.receipt(conn, channel, token),
                Event::Path(conn, remote, relayed) => sink.path(conn, remote, relayed),
                Event::Superseded(conn, by) => sink.superseded(conn, by),
            }
        }
        self.events.shrink_to(KEPT);
    }
}

impl Sink for Deferred {
    fn status(&mut self, conn: ConnHandle, old: Status, new: Status, reason: Option<&CloseReason>) {
        self.events.push(Event::Status(conn, old, new, reason.cloned()));
    }
    fn channel_ready(&mut self, conn: ConnHandle, channel: ChannelKey) {
        self.events.push(Event::Ready(conn, channel));
    }
    fn channel_closed(&mut self, conn: ConnHandle, channel: ChannelKey, end: &ChannelEnd) {
        self.events.push(Event::Closed(conn, channel, end.clone()));
    }
    fn writable(&mut self, conn: ConnHandle, channel: ChannelKey) {
        self.events.push(Event::Writable(conn, channel));
    }
    fn path(&mut self, conn: ConnHandle, remote: SocketAddr, relayed: bool) {
        self.events.push(Event::Path(conn, remote, relayed));
    }
    fn superseded(&mut self, conn: ConnHandle, by: ConnHandle) {
        self.events.push(Event::Superseded(conn, by));
    }
    fn receipt(&mut self, conn: ConnHandle, channel: ChannelKey, token: u64) {
        self.events.push(Event::Receipt(conn, channel, token));
    }
}
