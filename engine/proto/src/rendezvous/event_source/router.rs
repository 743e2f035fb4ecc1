//! Where clients are: the part of an event source that a fleet of them replaces.

use crate::rendezvous::event::{Event, EventError, EventRef};
use crate::rendezvous::names::{AppId, ClientId, NameError, PairingRole};
use core::hash::Hash;
use std::collections::HashMap;

/// A client, as its token has proved it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Party {
    /// Its application.
    pub app: AppId,
    /// Its id.
    pub client: ClientId,
    /// Its role.
    pub role: PairingRole,
}

/// An event on its way to another event source, with who sent it; the sender's event source vouches
/// for that.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Routed {
    /// Who sent it.
    pub from: Party,
    /// The event, with its true sender.
    pub event: Event,
}

impl Routed {
    /// A copy that can be kept or brought elsewhere.
    ///
    /// # Errors
    /// The event names no recipient.
    pub fn new(from: &Party, event: &EventRef<'_>) -> Result<Self, EventError> {
        Ok(Self { from: from.clone(), event: event.to_owned()? })
    }
}

/// A packet on its way to another event source, with who sent it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Relayed {
    /// Who sent it.
    pub from: Party,
    /// Whom it is for.
    pub to: ClientId,
    /// At most [`MAX_RELAY_PACKET`](crate::limits::MAX_RELAY_PACKET) bytes.
    pub packet: Box<[u8]>,
}

impl Relayed {
    /// A copy that can be kept or brought elsewhere.
    ///
    /// # Errors
    /// `to` is no client id.
    pub fn new(from: &Party, to: &str, packet: &[u8]) -> Result<Self, NameError> {
        Ok(Self { from: from.clone(), to: ClientId::new(to)?, packet: packet.into() })
    }
}

/// What a router did with an event or a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route<K> {
    /// The recipient is the client with this key, here.
    Here(K),
    /// It is elsewhere, and what it is to get is on its way there.
    Elsewhere,
    /// Nobody knows it; what it was to get is gone.
    Absent,
    /// It is elsewhere, and the way there is full; what it was to get is gone.
    Full,
}

/// Knows where clients are, and brings events and packets to those that are elsewhere.
///
/// [`LocalRouter`] knows the clients of one [`EventSource`](super::EventSource). A server of many
/// threads or a fleet of servers implements it over a shared table or a message bus: what it
/// brings to another event source goes into [`EventSource::routed`](super::EventSource::routed)
/// or [`EventSource::relayed`](super::EventSource::relayed) there, and a client that another event
/// source has taken over is reported with [`EventSource::released`](super::EventSource::released).
///
/// The recipient of an event is looked for by its id: in the sender's application if it is there,
/// otherwise in any other, so that the sender can be told that it is not in its own.
pub trait Router<K> {
    /// A client has come, and is newer than any other of its application and id: whoever has that
    /// one lets go of it. Gives back its key if it is here.
    fn attach(&mut self, party: &Party, key: K) -> Option<K>;

    /// A client has gone. Nothing happens when a newer one has its place.
    fn detach(&mut self, party: &Party, key: K);

    /// Presence: the role in which a client is there, wherever that is.
    fn presence(&self, app: &AppId, client: &ClientId) -> Option<PairingRole>;

    /// Finds the recipient of an event. Unless it is here, the event is brought to it.
    fn route(&mut self, from: &Party, event: &EventRef<'_>) -> Route<K>;

    /// Finds the recipient of a packet, in the sender's application only. Unless it is here, the
    /// packet is brought to it.
    fn relay(&mut self, from: &Party, to: &str, packet: &[u8]) -> Route<K>;
}

/// The clients of one event source.
#[derive(Clone, Debug)]
pub struct LocalRouter<K> {
    clients: HashMap<ClientId, Vec<Entry<K>>>,
}

/// One application's client of an id. Few ids are used by more than one.
#[derive(Clone, Debug)]
struct Entry<K> {
    app: AppId,
    role: PairingRole,
    key: K,
}

impl<K> Default for LocalRouter<K> {
    fn default() -> Self {
        Self { clients: HashMap::new() }
    }
}

impl<K: Copy> LocalRouter<K> {
    /// The key of the client of this id in an application.
    pub fn find(&self, app: &AppId, client: &str) -> Option<K> {
        self.own(app, client).map(|e| e.key)
    }
}

impl<K> LocalRouter<K> {
    /// The client of this id in an application.
    fn own(&self, app: &AppId, client: &str) -> Option<&Entry<K>> {
        self.clients.get(client)?.iter().find(|e| e.app == *app)
    }
}

impl<K: Copy + Eq + Hash> Router<K> for LocalRouter<K> {
    fn attach(&mut self, party: &Party, key: K) -> Option<K> {
        let entries = self.clients.entry(party.client.clone()).or_default();
        if let Some(entry) = entries.iter_mut().find(|e| e.app == party.app) {
            entry.role = party.role;
            return Some(core::mem::replace(&mut entry.key, key));
        }
        entries.push(Entry { app: party.app.clone(), role: party.role, key });
        None
    }

    fn detach(&mut self, party: &Party, key: K) {
        if let Some(entries) = self.clients.get_mut(&party.client) {
            entries.retain(|e| e.key != key || e.app != party.app);
            if entries.is_empty() {
                self.clients.remove(&party.client);
            }
        }
    }

    fn presence(&self, app: &AppId, client: &ClientId) -> Option<PairingRole> {
        self.own(app, client.as_str()).map(|e| e.role)
    }

    fn route(&mut self, from: &Party, event: &EventRef<'_>) -> Route<K> {
        let any = || self.clients.get(event.to)?.first();
        let entry = self.own(&from.app, event.to).or_else(any);
        entry.map_or(Route::Absent, |e| Route::Here(e.key))
    }

    fn relay(&mut self, from: &Party, to: &str, _: &[u8]) -> Route<K> {
        self.own(&from.app, to).map_or(Route::Absent, |e| Route::Here(e.key))
    }
}
