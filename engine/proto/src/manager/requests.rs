//! Channels asked for by name, in one call with the connection that they need (behaviours §4).

use super::Manager;
use super::associations::all_of;
use super::book::Record;
use super::key::{Reuse, ReuseKey, Target};
use super::notice::{AssociationId, ManagerSink, Notice, Opened, RequestError, RequestId};
use super::slots::Slots;
use crate::channel::ChannelPhase;
use crate::config::ChannelOptions;
use crate::endpoint::Endpoint;
use crate::error::{ApiError, CloseReason};
use crate::event::ChannelEnd;
use crate::ids::{ChannelKey, ConnHandle};
use crate::limits::MAX_CHANNEL_NAME;
use crate::status::Status;
use crate::time::Instant;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Code with which a channel that nobody wants any more is given up.
pub(super) const GIVEN_UP: u32 = 0;

/// Whom the answer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Application,
    Association(AssociationId),
}

/// Where a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Its connection is being made.
    Waiting(ConnHandle),
    /// The peer was asked.
    Asked(ConnHandle, ChannelKey),
    /// Its connection is gone, and what is to be done about it is not decided.
    Lost,
}

#[derive(Debug)]
pub(super) struct Request {
    target: Arc<Target>,
    key: ReuseKey,
    name: Box<str>,
    options: ChannelOptions,
    owner: Owner,
    place: Place,
    /// The second attempt runs, or there must be none.
    last: bool,
}

/// A channel that was asked for and is not answered.
#[derive(Debug, Default)]
struct Asked {
    /// The application has not heard of it.
    ours: bool,
    requests: Vec<RequestId>,
}

/// All requests.
#[derive(Debug, Default)]
pub(super) struct Requests {
    slots: Slots<Request>,
    waiting: BTreeMap<ConnHandle, Vec<RequestId>>,
    asked: BTreeMap<(ConnHandle, ChannelKey), Asked>,
    /// Requests whose connection is gone: why, and whether a further attempt makes sense.
    lost: Vec<(RequestId, ConnHandle, CloseReason, bool)>,
}

impl Requests {
    fn insert(&mut self, request: Request) -> Result<RequestId, ApiError> {
        let (slot, generation) = self.slots.insert("channel requests", |_| request)?;
        Ok(RequestId { slot, generation })
    }

    fn get(&mut self, id: RequestId) -> Option<&mut Request> {
        self.slots.get((id.slot, id.generation))
    }

    fn take(&mut self, id: RequestId) -> Option<Request> {
        self.slots.take((id.slot, id.generation))
    }

    /// Takes a request out of the list that it is in.
    fn unlist(&mut self, id: RequestId, place: Place) {
        match place {
            Place::Waiting(conn) => {
                if let Some(list) = self.waiting.get_mut(&conn) {
                    list.retain(|r| *r != id);
                    if list.is_empty() {
                        self.waiting.remove(&conn);
                    }
                }
            }
            Place::Asked(conn, channel) => {
                if let Some(asked) = self.asked.get_mut(&(conn, channel)) {
                    asked.requests.retain(|r| *r != id);
                }
            }
            Place::Lost => self.lost.retain(|(r, ..)| *r != id),
        }
    }

    /// The connection that a request is on.
    pub(super) fn conn_of(&mut self, id: RequestId) -> Option<ConnHandle> {
        match self.get(id)?.place {
            Place::Waiting(conn) | Place::Asked(conn, _) => Some(conn),
            Place::Lost => None,
        }
    }

    pub(super) const fn has_lost(&self) -> bool {
        !self.lost.is_empty()
    }

    /// Whether anything waits for a connection.
    pub(super) fn has_any(&self, conn: ConnHandle) -> bool {
        self.waiting.contains_key(&conn)
    }

    /// The requests that wait for a channel, which is answered now; whether the application has
    /// heard of the channel before.
    pub(super) fn answered(
        &mut self,
        conn: ConnHandle,
        channel: ChannelKey,
    ) -> Option<(bool, Vec<RequestId>)> {
        self.asked.remove(&(conn, channel)).map(|asked| (!asked.ours, asked.requests))
    }

    /// A channel that was given up: what is still told about it is nobody's.
    pub(super) fn disown(&mut self, conn: ConnHandle, channel: ChannelKey) {
        self.asked.insert((conn, channel), Asked { ours: true, requests: Vec::new() });
    }

    /// A connection is over for the application: everything that wants it is lost.
    pub(super) fn lose(&mut self, conn: ConnHandle, reason: &CloseReason, worth: bool) {
        let mut lost = self.waiting.remove(&conn).unwrap_or_default();
        let channels: Vec<_> = self.asked.range(all_of(conn)).map(|(k, _)| *k).collect();
        for key in channels {
            lost.extend(self.asked.remove(&key).into_iter().flat_map(|a| a.requests));
        }
        self.lose_these(lost, conn, reason, worth);
    }

    pub(super) fn lose_these(
        &mut self,
        requests: Vec<RequestId>,
        conn: ConnHandle,
        reason: &CloseReason,
        worth: bool,
    ) {
        for id in requests {
            if let Some(request) = self.get(id) {
                request.place = Place::Lost;
                self.lost.push((id, conn, reason.clone(), worth));
            }
        }
    }
}

impl Manager {
    /// Asks the peer for a channel called `name`: over a connection that is there, one that is being
    /// made, or a new one, as `target.reuse` says. Exactly one [`Notice::Request`] answers.
    ///
    /// A request whose connection dies is asked for again once, on another live connection or a new
    /// one; after that it fails with the reason for which the second one ended. A connection that
    /// cannot be made at all fails its requests at once unless another one stands. With
    /// [`ChannelOptions::unique`] the channel of that name is joined, whether it is open or asked
    /// for.
    ///
    /// # Errors
    /// Name or options out of range; [`ApiError::NoConnection`] with [`Reuse::NeverNew`] when there
    /// is none; what [`Endpoint::connect`] gives. Nothing follows an error.
    pub fn request_channel(
        &mut self,
        now: Instant,
        endpoint: &mut Endpoint,
        target: Target,
        name: &str,
        options: &ChannelOptions,
    ) -> Result<RequestId, ApiError> {
        self.request(now, endpoint, Arc::new(target), name, options, Owner::Application)
    }

    pub(super) fn request(
        &mut self,
        now: Instant,
        endpoint: &mut Endpoint,
        target: Arc<Target>,
        name: &str,
        options: &ChannelOptions,
        owner: Owner,
    ) -> Result<RequestId, ApiError> {
        options.validate()?;
        if name.len() > MAX_CHANNEL_NAME {
            let why = "must be at most 1024 bytes";
            return Err(ApiError::InvalidArgument { field: "name", why });
        }
        let key = self.key_of(&target);
        let found = self.book.find(endpoint, &key, target.reuse, None);
        if found.is_none() && target.reuse == Reuse::NeverNew {
            return Err(ApiError::NoConnection("none to this peer, and a new one was not wanted"));
        }
        let id = self.requests.insert(Request {
            target: target.clone(),
            key,
            name: name.into(),
            options: *options,
            owner,
            place: Place::Lost,
            last: false,
        })?;
        let conn = match found {
            Some(conn) => Ok(conn),
            None => self.begin(now, endpoint, &target, key, true),
        };
        match conn.and_then(|conn| self.place(now, endpoint, id, conn)) {
            Ok(()) => Ok(id),
            Err(error) => {
                self.requests.take(id);
                Err(error)
            }
        }
    }

    /// Gives a request up. Its notice says [`RequestError::Cancelled`]; `false` when it was answered
    /// before.
    pub fn cancel_request(
        &mut self,
        now: Instant,
        endpoint: &mut Endpoint,
        request: RequestId,
    ) -> bool {
        let Some(taken) = self.requests.take(request) else { return false };
        self.requests.unlist(request, taken.place);
        if let Place::Asked(conn, channel) = taken.place {
            let key = (conn, channel);
            if self.requests.asked.get(&key).is_some_and(|a| a.ours && a.requests.is_empty()) {
                // The end of the channel is nobody's: it stays listed until it is told.
                let _ = endpoint.reset_channel(now, conn, channel, GIVEN_UP);
                let _ = endpoint.stop_channel(now, conn, channel, GIVEN_UP);
            }
        }
        if taken.owner == Owner::Application {
            let outcome = Err(RequestError::Cancelled);
            self.owed.push_back(Notice::Request { request, outcome });
        }
        true
    }

    /// The channel of a request that is not answered yet, for data that is to go out without
    /// waiting for the answer. Such a request is not asked for again when its connection dies: what
    /// was sent would be missing.
    pub fn early_channel(&mut self, request: RequestId) -> Option<(ConnHandle, ChannelKey)> {
        let request = self.requests.get(request)?;
        let Place::Asked(conn, channel) = request.place else { return None };
        request.last = true;
        Some((conn, channel))
    }

    /// Puts a request onto a connection.
    fn place(
        &mut self,
        now: Instant,
        endpoint: &mut Endpoint,
        id: RequestId,
        conn: ConnHandle,
    ) -> Result<(), ApiError> {
        if endpoint.status(conn) == Status::Connected {
            return self.open(now, endpoint, id, conn);
        }
        self.requests.waiting.entry(conn).or_default().push(id);
        if let Some(request) = self.requests.get(id) {
            request.place = Place::Waiting(conn);
        }
        Ok(())
    }

    /// Asks the peer.
    fn open(
        &mut self,
        now: Instant,
        endpoint: &mut Endpoint,
        id: RequestId,
        conn: ConnHandle,
    ) -> Result<(), ApiError> {
        let Some(request) = self.requests.get(id) else { return Ok(()) };
        let unique = request.options.unique;
        let name = request.name.clone();
        let options = request.options;
        let channels = endpoint.stats(conn).map_or(0, |s| s.channels);
        let channel = endpoint.open_channel(now, conn, &name, &options)?;
        let new = endpoint.stats(conn).map_or(0, |s| s.channels) > channels;
        self.seen.push_back(super::Seen::Moved(conn));
        let info = endpoint.channel_info(conn, channel);
        if unique && !new && info.is_some_and(|i| i.phase == ChannelPhase::Open) {
            self.requests.take(id);
            let outcome = Ok(Opened { conn, channel, joined: true });
            self.owed.push_back(Notice::Request { request: id, outcome });
            return Ok(());
        }
        let asked = self.requests.asked.entry((conn, channel)).or_default();
        asked.ours |= new;
        asked.requests.push(id);
        if let Some(request) = self.requests.get(id) {
            request.place = Place::Asked(conn, channel);
            if let Owner::Association(association) = request.owner {
                self.associations.attach(association, conn, channel, endpoint.sec_info(conn));
                if let Some(hold) = self.associations.peek(association).map(|a| a.config.hold) {
                    self.book.hold_for(now, conn, hold, true);
                }
            }
        }
        Ok(())
    }

    /// A connection stands: what waited for it is asked for.
    pub(super) fn open_waiting<S: ManagerSink>(
        &mut self,
        now: Instant,
        endpoint: &mut Endpoint,
        conn: ConnHandle,
        sink: &mut S,
    ) {
        for id in self.requests.waiting.remove(&conn).unwrap_or_default() {
            if let Err(error) = self.open(now, endpoint, id, conn) {
                self.fail(id, RequestError::Api(error), sink);
            }
        }
    }

    /// The peer has answered a channel of ours.
    pub(super) fn granted<S: ManagerSink>(
        &mut self,
        conn: ConnHandle,
        channel: ChannelKey,
        requests: Vec<RequestId>,
        sink: &mut S,
    ) {
        for (i, request) in requests.into_iter().enumerate() {
            let Some(taken) = self.requests.take(request) else { continue };
            match taken.owner {
                Owner::Application => {
                    let outcome = Ok(Opened { conn, channel, joined: i > 0 });
                    sink.notice(Notice::Request { request, outcome });
                }
                Owner::Association(id) => self.associations.connected(id, sink),
            }
        }
    }

    /// A channel ended before it was answered, but not with its connection.
    pub(super) fn not_granted<S: ManagerSink>(
        &mut self,
        requests: Vec<RequestId>,
        end: &ChannelEnd,
        sink: &mut S,
    ) {
        for id in requests {
            self.fail(id, RequestError::from_end(end), sink);
        }
    }

    fn fail<S: ManagerSink>(&mut self, request: RequestId, error: RequestError, sink: &mut S) {
        let Some(taken) = self.requests.take(request) else { return };
        match taken.owner {
            Owner::Application => sink.notice(Notice::Request { request, outcome: Err(error) }),
            Owner::Association(id) => self.associations.not_connected(id, error, sink),
        }
    }

    /// Requests whose connection died: another connection, once.
    pub(super) fn retry_lost<S: ManagerSink>(
        &mut self,
        now: Instant,
        endpoint: &mut Endpoint,
        sink: &mut S,
    ) {
        for (id, old, reason, worth) in core::mem::take(&mut self.requests.lost) {
            if let Err(error) = self.retry(now, endpoint, id, old, &reason, worth) {
                self.fail(id, error, sink);
            }
        }
    }

    fn retry(
        &mut self,
        now: Instant,
        endpoint: &mut Endpoint,
        id: RequestId,
        old: ConnHandle,
        reason: &CloseReason,
        worth: bool,
    ) -> Result<(), RequestError> {
        let Some(request) = self.requests.get(id) else { return Ok(()) };
        let ended = RequestError::Connection(reason.clone());
        if core::mem::replace(&mut request.last, true) {
            return Err(ended);
        }
        let (target, key) = (request.target.clone(), request.key);
        if let Owner::Association(association) = request.owner {
            self.associations.detach(association);
        }
        let found = self.book.find(endpoint, &key, target.reuse, Some(old));
        // A connection that cannot be made is no reason to make the same one again.
        let found = found.filter(|conn| worth || endpoint.status(*conn) == Status::Connected);
        let conn = match found {
            Some(conn) => conn,
            None if worth && target.reuse != Reuse::NeverNew => {
                self.begin(now, endpoint, &target, key, true).map_err(|_| ended.clone())?
            }
            None => return Err(ended),
        };
        tracing::debug!(?old, ?conn, %reason, "a channel is asked for again");
        self.place(now, endpoint, id, conn).map_err(|_| ended)
    }

    /// Whether a dead connection's requests deserve another one: it stood, or it was closed here
    /// without regard to them.
    pub(super) const fn is_worth_another(record: &Record) -> bool {
        record.connected || record.closed_here
    }
}
