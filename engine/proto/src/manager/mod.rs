//! The connection manager (behaviours §4) and associations (behaviours §5): one connection for all
//! that want the same peer with the same security, channels asked for by name in one call, and
//! message associations that come and go with their connections.
//!
//! It stands above the endpoint and holds no connection: it remembers handles, asks the endpoint
//! whether they still live, and does through the endpoint's calls what an application could do
//! itself. It knows nothing of what carries a connection.
//!
//! # Order of calls
//! Whatever takes a sink is given [`Manager::watch`] around the application's sink, so that the
//! manager hears everything and keeps to itself what the application has not heard of yet:
//!
//! ```text
//! endpoint.receive(now, &meta, datagram, &mut manager.watch(&mut sink));
//! endpoint.end_batch(now, &mut manager.watch(&mut sink));
//! manager.run(now, &mut endpoint, &mut sink);
//! ```
//!
//! [`Manager::run`] follows every [`Endpoint::end_batch`] and [`Endpoint::handle_timeout`], and is
//! due when [`Manager::next_timeout`] has passed. Nothing is ever called while the endpoint is in
//! the middle of something, and no lock exists here.
//!
//! # One channel in one call
//! ```
//! # use trunkline_proto::manager::*;
//! # use trunkline_proto::{endpoint::*, config::*, error::*, time::Instant};
//! # fn ask(now: Instant, manager: &mut Manager, endpoint: &mut Endpoint, target: Target)
//! #     -> Result<RequestId, ApiError> {
//! // Reuses a connection, awaits one being made, or makes one; the answer is exactly one
//! // `Notice::Request`.
//! manager.request_channel(now, endpoint, target, "file://1", &ChannelOptions::default())
//! # }
//! ```
//!
//! | file | what it has |
//! | --- | --- |
//! | `config` | settings |
//! | `key` | what makes two connects the same |
//! | `book` | which connections there are |
//! | `slots` | places of requests and associations |
//! | `requests` | channels asked for by name |
//! | `state`, `associations`, `sending` | associations |
//! | `hold` | when a connection is not wanted any more |
//! | `security` | the callback while a connection is being made |
//! | `watch` | what the manager hears |
//! | `notice` | what it tells |

mod associations;
mod book;
mod config;
mod hold;
mod key;
mod notice;
mod requests;
mod security;
mod sending;
mod slots;
mod state;
mod watch;

pub use config::{AssociationConfig, ManagerConfig};
pub use hold::{HoldState, HoldTrigger};
pub use key::{Reuse, ReuseKey, Target};
pub use notice::{
    AssociationEnd, AssociationEvent, AssociationId, DeliveryError, ManagerSink, Notice, Opened,
    RequestError, RequestId,
};
pub use security::{
    Refused, SecHandle, SecurityCallback, SecurityChoice, SecurityQuery, SecurityStage,
};
pub use sending::{Messages, Security};
pub use state::{AssociationState, AssociationTrigger};
pub use watch::Watch;

use crate::endpoint::Endpoint;
use crate::error::{ApiError, CloseReason, Reason};
use crate::ids::ConnHandle;
use crate::status::Status;
use crate::time::{Duration, Instant};
use crate::wire::control::Activity;
use associations::Associations;
use book::{Book, Record};
use hold::{HoldState as Held, Step};
use requests::Requests;
use std::collections::VecDeque;
use std::sync::Arc;

/// What is not delivered when both sides were idle: the CLOSE alone.
const IDLE_LINGER: Duration = Duration::from_secs(5);
/// Words of the close of an idle connection.
const IDLE_TEXT: &str = "idle";

/// What a connect came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connected {
    /// The connection; its channels can be opened at once and are asked for when it is Connected.
    pub conn: ConnHandle,
    /// It was there before.
    pub reused: bool,
}

/// What was heard and is to be acted on when the endpoint is free.
#[derive(Debug)]
enum Seen {
    /// Its peer is proven and the callback has to be asked.
    Security(ConnHandle),
    /// It is Connected: what waited for it goes on.
    Connected(ConnHandle),
    /// It ended while nobody but the manager holds it.
    Ended(ConnHandle),
    /// The peer has said how much it wants.
    Activity(ConnHandle, Activity),
    /// Something moves on a connection that may have been called idle.
    Moved(ConnHandle),
    /// A channel closed.
    ChannelClosed(ConnHandle),
}

/// See the module.
#[derive(Debug, Default)]
pub struct Manager {
    config: ManagerConfig,
    book: Book,
    requests: Requests,
    associations: Associations,
    seen: VecDeque<Seen>,
    /// Ended connections to be freed once the application has heard of the end.
    ended: Vec<ConnHandle>,
    /// What calls without a sink have to tell.
    owed: VecDeque<Notice>,
    /// No further connection is begun.
    stopped: bool,
}

impl Manager {
    /// A manager with these settings.
    pub fn new(config: ManagerConfig) -> Self {
        Self { config, ..Self::default() }
    }

    // ---- connections

    /// Finds or makes the connection for a connect. The handle is the caller's, who closes it.
    ///
    /// # Errors
    /// [`ApiError::NoConnection`] with [`Reuse::NeverNew`] when there is none; what
    /// [`Endpoint::connect`] gives.
    pub fn connect(
        &mut self,
        now: Instant,
        endpoint: &mut Endpoint,
        target: Target,
    ) -> Result<Connected, ApiError> {
        let key = self.key_of(&target);
        if let Some(conn) = self.book.find(endpoint, &key, target.reuse, None) {
            self.keep(conn);
            return Ok(Connected { conn, reused: true });
        }
        if target.reuse == Reuse::NeverNew {
            return Err(ApiError::NoConnection("none to this peer, and a new one was not wanted"));
        }
        let conn = self.begin(now, endpoint, &Arc::new(target), key, false)?;
        Ok(Connected { conn, reused: false })
    }

    /// A connection that the manager made belongs to the caller from now on: it is not freed by
    /// itself when it ends, and not closed when it is idle unless somebody asked for that.
    pub fn keep(&mut self, conn: ConnHandle) {
        if let Some(record) = self.book.get_mut(conn) {
            record.mine = false;
            if record.hold.is_some_and(|hold| !hold.explicit) {
                self.book.hold_no_more(conn);
            }
        }
    }

    /// No further connection is begun: the endpoint is about to end. Requests whose connections end
    /// from now on fail with the reasons of those, and associations that wait for a peer have waited
    /// long enough.
    pub fn stop(&mut self, now: Instant) {
        self.stopped = true;
        self.associations.await_no_more(now);
    }

    /// A connection that the caller made belongs to the manager from now on: it is freed when it
    /// ends, and closed when it is idle.
    pub fn adopt(&mut self, now: Instant, conn: ConnHandle) {
        if let Some(record) = self.book.get_mut(conn) {
            record.mine = true;
            if let Some(time) = self.config.hold {
                self.book.hold_for(now, conn, time, false);
            }
        }
    }

    fn begin(
        &mut self,
        now: Instant,
        endpoint: &mut Endpoint,
        target: &Arc<Target>,
        key: ReuseKey,
        mine: bool,
    ) -> Result<ConnHandle, ApiError> {
        if self.stopped {
            return Err(ApiError::NoConnection("the endpoint is about to end"));
        }
        let Target { socket, remotes, config, link, .. } = &**target;
        let conn = endpoint.connect_over(now, *link, *socket, remotes, config)?;
        if self.config.security.is_some() {
            endpoint.ask_security(conn)?;
        }
        let mut record = Record::new(Some(target.clone()), Some(key), mine);
        record.handle = target.handle;
        self.book.insert(conn, record);
        if mine {
            if let Some(time) = self.config.hold {
                self.book.hold_for(now, conn, time, false);
            }
            self.owed.push_back(Notice::Begun { conn, key });
        }
        Ok(conn)
    }

    /// What a target can share a connection with. Where a callback is asked, its choice counts as the
    /// same for equal targets with equal handles, and for no others.
    fn key_of(&self, target: &Target) -> ReuseKey {
        let handle = target.handle.filter(|_| self.config.security.is_some());
        target.key().with_handle(handle)
    }

    /// The SecHandle that is kept for a connection: until it is Connected or has failed.
    pub fn sec_handle(&self, conn: ConnHandle) -> Option<SecHandle> {
        self.book.get(conn).and_then(|r| r.handle)
    }

    /// Closes the connection when it is idle: when no channel is open but those of associations, and
    /// nothing has moved on either side for that side's hold time. Each side says when it is idle;
    /// a peer that never does keeps the connection. `None` = no more.
    pub fn hold(&mut self, now: Instant, conn: ConnHandle, time: Option<Duration>) {
        match time {
            Some(time) => self.book.hold_for(now, conn, time, true),
            None => self.book.hold_no_more(conn),
        }
    }

    /// How much a connection is wanted; `None` when its hold time is not looked after.
    pub fn hold_state(&self, conn: ConnHandle) -> Option<HoldState> {
        self.book.get(conn).and_then(|r| r.hold).map(|h| h.state())
    }

    /// Connections that the manager has to do with.
    pub fn len(&self) -> usize {
        self.book.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.book.len() == 0
    }

    // ---- the turn

    /// The application's sink, with the manager in front.
    pub const fn watch<'a, S: ManagerSink>(&'a mut self, sink: &'a mut S) -> Watch<'a, S> {
        Watch::new(self, sink)
    }

    /// When [`run`](Self::run) has work; in the past when that is now.
    pub fn next_timeout(&self) -> Option<Instant> {
        let at_once = !self.seen.is_empty()
            || !self.ended.is_empty()
            || !self.owed.is_empty()
            || self.requests.has_lost()
            || self.associations.has_work();
        if at_once {
            return Some(Instant::ZERO);
        }
        self.book.next_look().into_iter().chain(self.associations.next_timeout()).min()
    }

    /// Does what was heard calls for, and what is due.
    pub fn run<S: ManagerSink>(&mut self, now: Instant, endpoint: &mut Endpoint, sink: &mut S) {
        for conn in core::mem::take(&mut self.ended) {
            // The application may have been quicker.
            let _ = endpoint.close(now, conn, Reason::APP.0, "", None);
        }
        while let Some(seen) = self.seen.pop_front() {
            self.act(now, endpoint, seen, sink);
        }
        self.retry_lost(now, endpoint, sink);
        self.run_associations(now, endpoint, sink);
        while let Some(conn) = self.book.due(now) {
            self.look(now, endpoint, conn, sink);
        }
        while let Some(notice) = self.owed.pop_front() {
            sink.notice(notice);
        }
    }

    fn act<S: ManagerSink>(
        &mut self,
        now: Instant,
        endpoint: &mut Endpoint,
        seen: Seen,
        sink: &mut S,
    ) {
        match seen {
            Seen::Security(conn) => self.decide(now, endpoint, conn),
            Seen::Connected(conn) => self.open_waiting(now, endpoint, conn, sink),
            Seen::Ended(conn) => self.ended.push(conn),
            Seen::Activity(conn, activity) => {
                let step = self.book.with_hold(conn, |hold| hold.heard(now, activity));
                self.held(now, endpoint, conn, step, sink);
            }
            Seen::Moved(conn) => self.moved(now, endpoint, conn, sink),
            Seen::ChannelClosed(conn) => {
                self.book.with_hold(conn, |hold| {
                    if hold.state() == HoldState::Active {
                        hold.moved(now);
                    }
                });
            }
        }
    }

    // ---- security

    /// The peer of a connection is proven: the callback says what becomes of it.
    fn decide(&mut self, now: Instant, endpoint: &mut Endpoint, conn: ConnHandle) {
        let Some(callback) = self.config.security.clone() else {
            let _ = endpoint.answer_security(now, conn, Ok(None));
            return;
        };
        let Some(info) = endpoint.sec_info(conn) else { return };
        let record = self.book.get(conn);
        let target = record.and_then(|r| r.target.clone());
        let query = SecurityQuery {
            handle: record.and_then(|r| r.handle),
            stage: SecurityStage::PeerProven,
            info: &info,
            remotes: target.as_ref().map_or(&[], |t| &t.remotes),
            server_name: target.as_ref().map_or("", |t| &t.config.server_name),
        };
        let answered = match callback.ask(&query) {
            Ok(choice) => endpoint.answer_security(now, conn, Ok(choice.credential.as_deref())),
            Err(Refused(text)) => endpoint.answer_security(now, conn, Err(&text)),
        };
        if let Err(error) = answered {
            let _ = endpoint.answer_security(now, conn, Err(&error.to_string()));
        }
    }

    // ---- hold times

    /// Something moves on a connection.
    fn moved<S: ManagerSink>(
        &mut self,
        now: Instant,
        endpoint: &mut Endpoint,
        conn: ConnHandle,
        sink: &mut S,
    ) {
        let step = self.book.with_hold(conn, |hold| hold.woken(now));
        self.held(now, endpoint, conn, step, sink);
    }

    /// The hold time of a connection may be over.
    fn look<S: ManagerSink>(
        &mut self,
        now: Instant,
        endpoint: &mut Endpoint,
        conn: ConnHandle,
        sink: &mut S,
    ) {
        let busy = endpoint.status(conn) != Status::Connected || self.requests.has_any(conn);
        let open = busy || self.has_channels(endpoint, conn);
        let moved_at = endpoint.moved_at(conn);
        let step = self.book.with_hold(conn, |hold| hold.look(now, moved_at, open));
        self.held(now, endpoint, conn, step, sink);
    }

    /// Whether channels are open besides those of associations.
    fn has_channels(&self, endpoint: &Endpoint, conn: ConnHandle) -> bool {
        let all = endpoint.stats(conn).map_or(0, |s| s.channels) as usize;
        all > self.associations.channels_of(conn) || self.associations.is_busy(conn)
    }

    /// The machine of a connection is in another state.
    fn held<S: ManagerSink>(
        &mut self,
        now: Instant,
        endpoint: &mut Endpoint,
        conn: ConnHandle,
        step: Option<Step>,
        sink: &mut S,
    ) {
        let Some(step) = step else { return };
        if let Some(activity) = step.say {
            let _ = endpoint.send_activity(conn, activity);
        }
        let Some(new) = step.entered else { return };
        match new {
            Held::Active => self.associations.each_of(conn, |a| a.wake(sink)),
            Held::Idle | Held::Retiring => self.associations.each_of(conn, |a| a.rest(sink)),
            Held::Closing if self.has_channels(endpoint, conn) => {
                // The application has opened one behind our back: the connection is in use after
                // all. What the peer started meanwhile is not known here, so it is told.
                self.book.with_hold(conn, |hold| hold.revive(now));
                let _ = endpoint.send_activity(conn, Activity::Active);
                self.associations.each_of(conn, |a| a.wake(sink));
            }
            Held::Closing => {
                self.associations.end_idle(conn, sink);
                let closed = endpoint.close(now, conn, Reason::APP.0, IDLE_TEXT, Some(IDLE_LINGER));
                tracing::debug!(?conn, ?closed, "idle on both sides");
            }
        }
    }

    /// Whether an end is what two idle sides agreed on.
    fn is_idle_end(&self, conn: ConnHandle, reason: &CloseReason) -> bool {
        self.hold_state(conn).is_some_and(|s| matches!(s, Held::Retiring | Held::Closing))
            && reason.reason == Reason::APP
    }
}
