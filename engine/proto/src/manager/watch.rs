//! What the manager hears: a sink in front of the application's.

use super::hold::HoldState;
use super::notice::ManagerSink;
use super::{Manager, Seen};
use crate::config::ChannelKind;
use crate::connection::SecInfo;
use crate::error::{CloseReason, Reason};
use crate::event::{ChannelEnd, ChannelRequest, CloseReport, Incoming, Sink};
use crate::ids::{ChannelKey, ConnHandle};
use crate::status::Status;
use crate::wire::control::Activity;
use std::net::SocketAddr;

/// Passes everything on that is the application's, and keeps what is the manager's. Data and
/// messages are passed on untouched, those of associations too:
/// [`Manager::association_of`] tells which they are.
#[derive(Debug)]
pub struct Watch<'a, S> {
    manager: &'a mut Manager,
    inner: &'a mut S,
}

impl<'a, S: ManagerSink> Watch<'a, S> {
    pub(super) const fn new(manager: &'a mut Manager, inner: &'a mut S) -> Self {
        Self { manager, inner }
    }

    /// A connection is over for the application.
    fn over(&mut self, conn: ConnHandle, reason: &CloseReason, here: bool) {
        let manager = &mut *self.manager;
        let idle = manager.is_idle_end(conn, reason);
        let mut worth = true;
        if let Some(record) = manager.book.get_mut(conn) {
            if record.over.is_some() {
                return;
            }
            record.over = Some(reason.clone());
            record.closed_here = here;
            record.handle = None;
            worth = Manager::is_worth_another(record);
            if record.mine && !here {
                manager.seen.push_back(Seen::Ended(conn));
            }
        }
        manager.book.hold_no_more(conn);
        manager.requests.lose(conn, reason, worth);
        manager.associations.broken(conn, reason, idle, self.inner);
    }

    fn woken(&mut self, conn: ConnHandle) {
        if self.manager.hold_state(conn).is_some_and(|s| s != HoldState::Active) {
            self.manager.seen.push_back(Seen::Moved(conn));
        }
    }
}

// A default body here would swallow the event.
#[deny(clippy::missing_trait_methods)]
impl<S: ManagerSink> Sink for Watch<'_, S> {
    fn status(&mut self, conn: ConnHandle, old: Status, new: Status, reason: Option<&CloseReason>) {
        self.inner.status(conn, old, new, reason);
        match new {
            Status::Connected => {
                if let Some(record) = self.manager.book.get_mut(conn) {
                    record.connected = true;
                    record.handle = None;
                    self.manager.seen.push_back(Seen::Connected(conn));
                }
            }
            Status::ClosedByPeer | Status::ProblemDetectedLocally => {
                let none = CloseReason::new(Reason::MISC, "");
                self.over(conn, reason.unwrap_or(&none), false);
            }
            Status::FinWait | Status::Linger => {
                let none = CloseReason::new(Reason::APP, "closed here");
                self.over(conn, reason.unwrap_or(&none), true);
            }
            _ => {}
        }
    }

    fn incoming(&mut self, conn: ConnHandle, incoming: &Incoming<'_>) {
        self.inner.incoming(conn, incoming);
    }

    fn dead(&mut self, conn: ConnHandle, report: &CloseReport) {
        self.over(conn, &report.reason, true);
        self.manager.book.remove(conn);
        self.inner.dead(conn, report);
    }

    fn channel_request(
        &mut self,
        conn: ConnHandle,
        channel: ChannelKey,
        request: &ChannelRequest<'_>,
    ) {
        self.woken(conn);
        if !self.manager.associations.may_take(conn, channel, request) {
            self.inner.channel_request(conn, channel, request);
        }
    }

    fn channel_ready(&mut self, conn: ConnHandle, channel: ChannelKey) {
        self.woken(conn);
        let manager = &mut *self.manager;
        if let Some((known, requests)) = manager.requests.answered(conn, channel) {
            if known {
                self.inner.channel_ready(conn, channel);
            }
            if requests.is_empty() {
                // Given up meanwhile: its end is nobody's either.
                manager.requests.disown(conn, channel);
            }
            manager.granted(conn, channel, requests, self.inner);
        } else if let Some(id) = manager.associations.of(conn, channel) {
            manager.associations.connected(id, self.inner);
        } else {
            self.inner.channel_ready(conn, channel);
        }
    }

    fn channel_closed(&mut self, conn: ConnHandle, channel: ChannelKey, end: &ChannelEnd) {
        let manager = &mut *self.manager;
        if manager.hold_state(conn).is_some() {
            manager.seen.push_back(Seen::ChannelClosed(conn));
        }
        if let Some((known, requests)) = manager.requests.answered(conn, channel) {
            if known {
                self.inner.channel_closed(conn, channel, end);
            }
            manager.associations.unmap(conn, channel);
            match end {
                ChannelEnd::Connection(reason) => {
                    let record = manager.book.get(conn);
                    let worth = record.is_none_or(Manager::is_worth_another);
                    manager.requests.lose_these(requests, conn, reason, worth);
                }
                _ => manager.not_granted(requests, end, self.inner),
            }
        } else if let Some(id) = manager.associations.of(conn, channel) {
            let idle = match end {
                ChannelEnd::Connection(reason) => manager.is_idle_end(conn, reason),
                _ => false,
            };
            manager.associations.channel_closed(id, end, idle, self.inner);
        } else if !manager.associations.forget_channel(conn, channel) {
            self.inner.channel_closed(conn, channel, end);
        }
    }

    #[inline]
    fn data(&mut self, conn: ConnHandle, channel: ChannelKey, bytes: &[u8]) {
        self.inner.data(conn, channel, bytes);
    }

    #[inline]
    fn message(
        &mut self,
        conn: ConnHandle,
        channel: ChannelKey,
        kind: ChannelKind,
        message: &[u8],
    ) {
        if self.manager.associations.has_channels() {
            self.woken(conn);
            if self.manager.associations.is_ended(conn, channel) {
                return;
            }
        }
        self.inner.message(conn, channel, kind, message);
    }

    fn message_buffer(
        &mut self,
        conn: ConnHandle,
        channel: ChannelKey,
        kind: ChannelKind,
        buffer: &mut Vec<u8>,
        from: usize,
    ) {
        if self.manager.associations.has_channels() {
            self.woken(conn);
            if self.manager.associations.is_ended(conn, channel) {
                return;
            }
        }
        self.inner.message_buffer(conn, channel, kind, buffer, from);
    }

    fn eof(&mut self, conn: ConnHandle, channel: ChannelKey) {
        match self.manager.associations.of(conn, channel) {
            Some(id) => self.manager.associations.peer_finished(id),
            None if self.manager.associations.is_ended(conn, channel) => {}
            None => self.inner.eof(conn, channel),
        }
    }

    fn reset(&mut self, conn: ConnHandle, channel: ChannelKey, code: u32) {
        match self.manager.associations.of(conn, channel) {
            Some(id) => self.manager.associations.peer_cut(id, self.inner),
            None if self.manager.associations.is_ended(conn, channel) => {}
            None => self.inner.reset(conn, channel, code),
        }
    }

    fn stopped(&mut self, conn: ConnHandle, channel: ChannelKey, code: u32) {
        match self.manager.associations.of(conn, channel) {
            Some(id) => self.manager.associations.peer_cut(id, self.inner),
            None if self.manager.associations.is_ended(conn, channel) => {}
            None => self.inner.stopped(conn, channel, code),
        }
    }

    fn writable(&mut self, conn: ConnHandle, channel: ChannelKey) {
        match self.manager.associations.of(conn, channel) {
            Some(id) => self.manager.associations.writable(id),
            None if self.manager.associations.is_ended(conn, channel) => {}
            None => self.inner.writable(conn, channel),
        }
    }

    fn credit_short(&mut self, conn: ConnHandle, channel: ChannelKey) {
        self.inner.credit_short(conn, channel);
    }

    fn receipt(&mut self, conn: ConnHandle, channel: ChannelKey, token: u64) {
        match self.manager.associations.of(conn, channel) {
            Some(id) => self.manager.associations.receipt(id, token, self.inner),
            None if self.manager.associations.is_ended(conn, channel) => {}
            None => self.inner.receipt(conn, channel, token),
        }
    }

    fn activity(&mut self, conn: ConnHandle, activity: Activity) {
        if self.manager.hold_state(conn).is_some() {
            self.manager.seen.push_back(Seen::Activity(conn, activity));
        }
        self.inner.activity(conn, activity);
    }

    fn security(&mut self, conn: ConnHandle, info: &SecInfo) {
        self.manager.seen.push_back(Seen::Security(conn));
        self.inner.security(conn, info);
    }

    fn path(&mut self, conn: ConnHandle, remote: SocketAddr, relayed: bool) {
        self.inner.path(conn, remote, relayed);
    }

    fn path_failed(&mut self, conn: ConnHandle, socket: u16, remote: SocketAddr) {
        self.inner.path_failed(conn, socket, remote);
    }

    fn superseded(&mut self, conn: ConnHandle, by: ConnHandle) {
        self.inner.superseded(conn, by);
    }

    fn check_answered(&mut self, conn: ConnHandle) {
        self.inner.check_answered(conn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::{ManagerConfig, Notice};

    #[derive(Default)]
    struct Heard(Vec<&'static str>);

    impl Sink for Heard {
        fn path(&mut self, _: ConnHandle, _: SocketAddr, _: bool) {
            self.0.push("path");
        }
        fn path_failed(&mut self, _: ConnHandle, _: u16, _: SocketAddr) {
            self.0.push("path failed");
        }
        fn superseded(&mut self, _: ConnHandle, _: ConnHandle) {
            self.0.push("superseded");
        }
    }

    impl ManagerSink for Heard {
        fn notice(&mut self, _: Notice) {}
    }

    #[test]
    fn what_happens_to_routes_is_passed_on() {
        let mut manager = Manager::new(ManagerConfig::default());
        let mut heard = Heard::default();
        let conn = ConnHandle { slot: 1, generation: 1 };
        let remote: SocketAddr = "192.0.2.1:1".parse().unwrap();
        let mut watch = manager.watch(&mut heard);
        watch.path(conn, remote, false);
        watch.path_failed(conn, 0, remote);
        watch.superseded(conn, ConnHandle { slot: 2, generation: 1 });
        assert_eq!(heard.0, ["path", "path failed", "superseded"]);
    }
}
