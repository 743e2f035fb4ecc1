//! Associations that a call or a shard looks for: those with a peer by its key and their name, and
//! those that wait for a peer, whichever shard it comes to.

use super::lock;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard};
use trunkline_proto::ids::PeerId;
use trunkline_proto::manager::{AssociationConfig, ReuseKey};

/// What an association with a peer is found by.
type Name = (ReuseKey, Arc<str>);

/// An association with a peer that is not over and not being closed.
struct Found {
    number: u64,
    /// Calls on their way to its shard, each of which begins it if nothing has.
    coming: u32,
}

/// An association that waits for a peer.
pub(super) struct Listing {
    pub number: u64,
    pub group: u32,
    /// `None`: for anybody.
    pub peer: Option<PeerId>,
    pub config: AssociationConfig,
}

/// See the module.
#[derive(Default)]
pub(super) struct Lists {
    /// The newest last: a connect that forces a new one leaves those before it.
    by_name: BTreeMap<Name, Vec<Found>>,
    names: BTreeMap<u64, Name>,
    /// In the order in which they began, for each name.
    listening: BTreeMap<Arc<str>, BTreeMap<u64, Listing>>,
    listed: BTreeMap<u64, (Arc<str>, u64)>,
    /// How many have begun.
    begun: u64,
}

/// One for all shards of an engine. No message of an association comes by here unless its call names
/// the peer.
#[derive(Default)]
pub(super) struct Directory {
    lists: Mutex<Lists>,
}

impl Directory {
    pub(super) fn open(&self) -> MutexGuard<'_, Lists> {
        lock(&self.lists)
    }
}

impl Lists {
    // ---- with a peer

    /// The newest association of this name that is `usable`.
    pub(super) fn find(
        &self,
        key: ReuseKey,
        name: &str,
        usable: impl Fn(u64) -> bool,
    ) -> Option<u64> {
        let found = self.by_name.get(&(key, name.into()))?;
        found.iter().rev().map(|f| f.number).find(|number| usable(*number))
    }

    /// A call that begins this association if nothing has is on its way to the shard.
    pub(super) fn coming(&mut self, key: ReuseKey, name: &str, number: u64) {
        let name: Name = (key, name.into());
        let all = self.by_name.entry(name.clone()).or_default();
        if let Some(found) = all.iter_mut().find(|f| f.number == number) {
            found.coming += 1;
        } else {
            all.push(Found { number, coming: 1 });
            self.names.insert(number, name);
        }
    }

    fn found(&mut self, number: u64) -> Option<&mut Found> {
        let all = self.by_name.get_mut(self.names.get(&number)?)?;
        all.iter_mut().find(|f| f.number == number)
    }

    /// Such a call has arrived.
    pub(super) fn arrived(&mut self, number: u64) {
        if let Some(found) = self.found(number) {
            found.coming = found.coming.saturating_sub(1);
        }
    }

    /// Whether further ones are on their way. If not, the number is forgotten.
    pub(super) fn has_more(&mut self, number: u64) -> bool {
        let more = self.found(number).is_some_and(|found| found.coming > 0);
        if !more {
            self.forget(number);
        }
        more
    }

    /// It is over, or about to be closed: the next call begins another one.
    pub(super) fn forget(&mut self, number: u64) {
        let Some(name) = self.names.remove(&number) else { return };
        if let Some(all) = self.by_name.get_mut(&name) {
            all.retain(|f| f.number != number);
            if all.is_empty() {
                self.by_name.remove(&name);
            }
        }
    }

    // ---- that wait for one

    pub(super) fn list(&mut self, listing: Listing) {
        let name: Arc<str> = listing.config.name.as_str().into();
        self.begun += 1;
        self.listed.insert(listing.number, (name.clone(), self.begun));
        self.listening.entry(name).or_default().insert(self.begun, listing);
    }

    /// It waits no longer. `None`: it does not wait any more.
    pub(super) fn unlist(&mut self, number: u64) -> Option<Listing> {
        let (name, place) = self.listed.remove(&number)?;
        let all = self.listening.get_mut(&name)?;
        let listing = all.remove(&place);
        if all.is_empty() {
            self.listening.remove(&name);
        }
        listing
    }

    /// The oldest that waits for this peer to ask for a channel of this name.
    pub(super) fn waits_for(&self, name: &str, peer: Option<PeerId>) -> Option<&Listing> {
        let fits = |listing: &&Listing| listing.peer.is_none() || listing.peer == peer;
        self.listening.get(name)?.values().find(fits)
    }

    /// The shard that gave these numbers has ended.
    pub(super) fn unlist_all(&mut self, numbers: RangeInclusive<u64>) {
        let gone: Vec<u64> = self.listed.range(numbers).map(|(number, _)| *number).collect();
        for number in gone {
            self.unlist(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> ReuseKey {
        use crate::{ConnectLink, Trust};
        use trunkline_proto::endpoint::ClientConfig;
        use trunkline_proto::handshake::ClientTls;
        let tls = ClientTls::new(None, &Trust::DangerousAny, None).unwrap();
        let config = ClientConfig {
            tls,
            server_name: text.into(),
            credential: Vec::new(),
            connection: None,
        };
        ReuseKey::new(&[], &config, ConnectLink::Datagram)
    }

    #[test]
    fn the_newest_is_found_until_it_is_over_and_then_the_one_before() {
        let mut lists = Lists::default();
        let (a, b) = (key("a"), key("b"));
        lists.coming(a, "x", 1);
        lists.coming(a, "x", 2);
        lists.coming(a, "x", 2);
        lists.coming(b, "x", 3);
        assert_eq!(lists.find(a, "x", |_| true), Some(2));
        assert_eq!(lists.find(a, "x", |n| n != 2), Some(1));
        assert_eq!((lists.find(a, "y", |_| true), lists.find(b, "x", |_| true)), (None, Some(3)));
        lists.arrived(2);
        assert!(lists.has_more(2));
        lists.arrived(2);
        assert!(!lists.has_more(2));
        lists.forget(2);
        assert_eq!(lists.find(a, "x", |_| true), Some(1));
        lists.forget(1);
        lists.forget(3);
        assert!(lists.by_name.is_empty() && lists.names.is_empty());
    }

    #[test]
    fn the_oldest_that_fits_the_peer_is_taken() {
        let mut lists = Lists::default();
        let (me, other) = (PeerId([1; 32]), PeerId([2; 32]));
        let list = |lists: &mut Lists, number: u64, name: &str, peer: Option<PeerId>| {
            let config = AssociationConfig::new(name);
            lists.list(Listing { number, group: 0, peer, config });
        };
        list(&mut lists, 9, "x", Some(other));
        list(&mut lists, 5, "x", None);
        list(&mut lists, 3, "x", Some(me));
        list(&mut lists, 4, "y", None);
        let waits = |lists: &Lists, name: &str, peer| lists.waits_for(name, peer).map(|l| l.number);
        assert_eq!(waits(&lists, "x", Some(other)), Some(9));
        assert_eq!((waits(&lists, "x", Some(me)), waits(&lists, "x", None)), (Some(5), Some(5)));
        assert!(lists.unlist(5).is_some() && lists.unlist(5).is_none());
        assert_eq!((waits(&lists, "x", Some(me)), waits(&lists, "x", None)), (Some(3), None));
        lists.unlist_all(4..=9);
        assert_eq!((waits(&lists, "x", Some(other)), waits(&lists, "y", None)), (None, None));
        lists.unlist(3);
        assert!(lists.listening.is_empty() && lists.listed.is_empty());
    }
}
