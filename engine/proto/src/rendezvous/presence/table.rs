//! The devices that a client has found.

use super::describe::{DeviceType, Links, Mode};
use super::state::{ClientState, ClientTrigger};
use super::wire::Response;
use crate::ids::PeerId;
use crate::limits::{MAX_DEVICE_ADDRESSES, MAX_DEVICES_PER_SOURCE, MAX_PRESENCE_DEVICES};
use crate::time::{Duration, Instant};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// A way to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// Where it listens: the address from which it answered, with the port that it named.
    pub address: SocketAddr,
    /// Between question and answer, without the time for which the answer was held back. A device
    /// can make it shorter by lying.
    pub rtt: Duration,
    /// When it answered last.
    pub heard: Instant,
}

/// A device as it describes itself. Believe nothing of it that no connection has proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The hash of its public key: what a connection is to be pinned to.
    pub peer: PeerId,
    /// Which application it is.
    pub service: String,
    /// For people; no control characters, at most 63 bytes.
    pub name: String,
    /// What kind of device it is.
    pub device_type: DeviceType,
    /// Whom it lets in.
    pub mode: Mode,
    /// Which links it listens on.
    pub links: Links,
    /// Version of the connection protocol that it speaks.
    pub protocol: u32,
    /// It has shown that it knows the device id that was asked for.
    pub id_proven: bool,
    /// Where it answered, in the order in which the addresses were first heard; never empty.
    pub paths: Vec<Path>,
    /// When it was found.
    pub found: Instant,
    /// The session with it: Ready, or Ended for one that is lost.
    pub state: ClientState,
}

impl Device {
    /// When it answered last.
    pub fn heard(&self) -> Instant {
        self.paths.iter().map(|p| p.heard).max().unwrap_or(self.found)
    }

    /// The shortest way to it.
    pub fn nearest(&self) -> Option<&Path> {
        self.paths.iter().min_by_key(|p| p.rtt)
    }

    /// Where it listens, the shortest way first: at most 8 addresses, never none.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let mut paths: Vec<&Path> = self.paths.iter().collect();
        paths.sort_by_key(|p| p.rtt);
        paths.into_iter().map(|p| p.address).collect()
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.paths.first().map_or(0, |p| p.address.port())
    }

    fn new(response: &Response<'_>, id_proven: bool, path: Path) -> Self {
        Self {
            peer: response.peer,
            service: response.service.to_owned(),
            name: response.name.to_owned(),
            device_type: response.device_type,
            mode: response.mode,
            links: response.links,
            protocol: response.protocol,
            id_proven,
            paths: vec![path],
            found: path.heard,
            state: ClientState::WaitingForPresenceResponse.after(ClientTrigger::Answered),
        }
    }

    /// An answer from `path.address`.
    fn hear(&mut self, response: &Response<'_>, id_proven: bool, path: Path) -> Change {
        let known = self.paths.iter().position(|p| p.address == path.address);
        if known.is_none() && self.paths.len() >= MAX_DEVICE_ADDRESSES {
            return Change::Full;
        }
        match known {
            Some(at) => self.paths[at] = path,
            None => self.paths.push(path),
        }
        if self.describe(response, id_proven) || known.is_none() {
            Change::Changed
        } else {
            Change::Same
        }
    }

    /// Takes over what an answer says; whether that is something new.
    fn describe(&mut self, response: &Response<'_>, id_proven: bool) -> bool {
        let same = self.name == response.name
            && self.device_type == response.device_type
            && self.mode == response.mode
            && self.links == response.links
            && self.protocol == response.protocol
            && self.id_proven == id_proven;
        if !same {
            response.name.clone_into(&mut self.name);
            self.device_type = response.device_type;
            self.mode = response.mode;
            self.links = response.links;
            self.protocol = response.protocol;
            self.id_proven = id_proven;
        }
        !same
    }
}

/// A program on a device: two programs of one key listen on two ports.
pub(super) type Key = (PeerId, u16, String);

pub(super) fn key_of(response: &Response<'_>) -> Key {
    (response.peer, response.port, response.service.to_owned())
}

/// What an answer has changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    Found,
    Changed,
    Same,
    /// A bound was reached; the answer is not in the table.
    Full,
}

#[derive(Debug)]
pub(super) struct Devices {
    known: BTreeMap<Key, Device>,
    /// No path expires before this.
    next_expiry: Option<Instant>,
    heartbeat: Duration,
}

impl Devices {
    pub(super) fn new(heartbeat: Duration) -> Self {
        Self { known: BTreeMap::new(), next_expiry: None, heartbeat }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Device> {
        self.known.values()
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Device> {
        self.known.get(key)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    pub(super) const fn next_expiry(&self) -> Option<Instant> {
        self.next_expiry
    }

    /// A valid answer from `path.address`.
    pub(super) fn hear(&mut self, response: &Response<'_>, proven: bool, path: Path) -> Change {
        let expiry = path.heard + self.heartbeat;
        let next = self.next_expiry.map_or(expiry, |next| next.min(expiry));
        let key = key_of(response);
        let change = if let Some(device) = self.known.get_mut(&key) {
            device.hear(response, proven, path)
        } else if self.known.len() >= MAX_PRESENCE_DEVICES
            || self.claimed_by(path.address.ip()) >= MAX_DEVICES_PER_SOURCE
        {
            Change::Full
        } else {
            self.known.insert(key, Device::new(response, proven, path));
            Change::Found
        };
        if change != Change::Full {
            self.next_expiry = Some(next);
        }
        change
    }

    fn claimed_by(&self, source: IpAddr) -> usize {
        let by = |d: &&Device| d.paths.iter().any(|p| p.address.ip() == source);
        self.known.values().filter(by).count()
    }

    /// The device says from `address` that it leaves. Gives it back, with its last path, once no
    /// other one is left.
    pub(super) fn leave(&mut self, key: &Key, address: SocketAddr) -> Option<Device> {
        let device = self.known.get_mut(key)?;
        if device.paths.iter().any(|p| p.address != address) {
            device.paths.retain(|p| p.address != address);
            return None;
        }
        let mut device = self.known.remove(key)?;
        device.state = device.state.after(ClientTrigger::HostLeft);
        Some(device)
    }

    /// Forgets the paths on which nothing was heard for the heartbeat, and gives the devices that
    /// have none left.
    pub(super) fn expire(&mut self, now: Instant, mut lost: impl FnMut(Device)) {
        if self.next_expiry.is_none_or(|next| now < next) {
            return;
        }
        let heartbeat = self.heartbeat;
        let mut next: Option<Instant> = None;
        let gone: Vec<Key> = self
            .known
            .iter_mut()
            .filter_map(|(key, device)| {
                let last = device.heard();
                if last + heartbeat <= now {
                    return Some(key.clone());
                }
                device.paths.retain(|p| p.heard + heartbeat > now);
                let first = device.paths.iter().map(|p| p.heard + heartbeat).min();
                next = next.into_iter().chain(first).min();
                None
            })
            .collect();
        self.next_expiry = next;
        for key in gone {
            if let Some(mut device) = self.known.remove(&key) {
                device.state = device.state.after(ClientTrigger::HeartbeatExpired);
                lost(device);
            }
        }
    }
}
