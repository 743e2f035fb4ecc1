//! User data of connections and channels.
//!
//! The engine forgets a connection when it ends; the application hears of that later, and wants
//! its pointer back with the very last item. So pointers are kept here until that item was
//! received. Most applications set none: that costs nothing.

use crate::instance::lock;
use engine::{Channel, Conn, QueuedEngine};
use std::collections::HashMap;
use std::ffi::c_void;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Locks that connections are spread over.
const PARTS: usize = 16;

/// Names are counters: a multiplication spreads them well enough.
#[derive(Default)]
pub(crate) struct NameHasher(u64);

impl Hasher for NameHasher {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = (self.0 ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

type Map<T> = HashMap<u64, T, BuildHasherDefault<NameHasher>>;

/// A pointer of the application, which is only handed back.
#[derive(Clone, Copy)]
struct User(*mut c_void);

// SAFETY: never dereferenced here.
unsafe impl Send for User {}

/// What is kept for one connection.
#[derive(Default)]
struct Entry {
    conn: Option<User>,
    channels: Map<User>,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Users {
    parts: [Mutex<Map<Entry>>; PARTS],
    /// Connections with an entry.
    entries: AtomicUsize,
}

impl Users {
    fn part(&self, conn: Conn) -> &Mutex<Map<Entry>> {
        &self.parts[conn.to_bits() as usize / 2 % PARTS]
    }

    /// Whether nothing is kept at all.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.load(Ordering::Acquire) == 0
    }

    /// Changes an entry, unless `is_live` says that its owner has ended. If it has not, the item
    /// that takes the entry out is yet to come, and waits for the lock.
    fn change(&self, conn: Conn, is_live: impl Fn() -> bool, f: impl FnOnce(&mut Entry)) -> bool {
        let mut part = lock(self.part(conn));
        if !is_live() {
            return false;
        }
        let entry = part.entry(conn.to_bits()).or_insert_with(|| {
            self.entries.fetch_add(1, Ordering::Release);
            Entry::default()
        });
        f(entry);
        true
    }

    /// Keeps a connection's pointer; `false` when the connection has ended.
    pub(crate) fn set_conn(&self, engine: &QueuedEngine, conn: Conn, user: *mut c_void) -> bool {
        let is_live = || engine.user_data(conn).is_ok();
        self.change(conn, is_live, |entry| entry.conn = Some(User(user)))
    }

    /// Keeps a channel's pointer; `false` when the channel has ended.
    pub(crate) fn set_channel(
        &self,
        engine: &QueuedEngine,
        channel: Channel,
        user: *mut c_void,
    ) -> bool {
        let name = QueuedEngine::channel_bits(channel);
        // Callbacks read it there, without a lock.
        let _ = engine.set_channel_user_data(channel, user.expose_provenance() as u64);
        let is_live = || engine.channel_user_data(channel).is_ok();
        self.change(channel.conn(), is_live, |entry| {
            entry.channels.insert(name, User(user));
        })
    }

    /// A connection's pointer, or NULL.
    pub(crate) fn conn(&self, conn: Conn) -> *mut c_void {
        if self.is_empty() {
            return std::ptr::null_mut();
        }
        let part = lock(self.part(conn));
        let user = part.get(&conn.to_bits()).and_then(|entry| entry.conn);
        user.map_or(std::ptr::null_mut(), |user| user.0)
    }

    /// The pointers of all connections that have one, by the bits of their names.
    pub(crate) fn conns(&self) -> HashMap<u64, *mut c_void> {
        let mut all = HashMap::new();
        for part in &self.parts {
            let part = lock(part);
            all.extend(part.iter().filter_map(|(name, entry)| Some((*name, entry.conn?.0))));
        }
        all
    }

    /// The pointers of a channel's connection and of the channel, or NULL.
    pub(crate) fn channel(&self, channel: Channel) -> (*mut c_void, *mut c_void) {
        let none = std::ptr::null_mut();
        if self.is_empty() {
            return (none, none);
        }
        let part = lock(self.part(channel.conn()));
        let Some(entry) = part.get(&channel.conn().to_bits()) else { return (none, none) };
        let own = entry.channels.get(&QueuedEngine::channel_bits(channel));
        (entry.conn.map_or(none, |user| user.0), own.map_or(none, |user| user.0))
    }

    /// The channel's last item is being received.
    pub(crate) fn end_channel(&self, channel: Channel) {
        if self.is_empty() {
            return;
        }
        if let Some(entry) = lock(self.part(channel.conn())).get_mut(&channel.conn().to_bits()) {
            entry.channels.remove(&QueuedEngine::channel_bits(channel));
        }
    }

    /// The connection's last item is being received.
    pub(crate) fn end_conn(&self, conn: Conn) {
        if self.is_empty() {
            return;
        }
        if lock(self.part(conn)).remove(&conn.to_bits()).is_some() {
            self.entries.fetch_sub(1, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointer(n: usize) -> *mut c_void {
        std::ptr::without_provenance_mut(n)
    }

    fn channel(bits: u64, slot: u32) -> Channel {
        let key = trunkline_proto::ids::ChannelKey { slot, life: 1 };
        Channel::from_parts(Conn::from_bits(bits), key)
    }

    #[test]
    fn pointers_stay_until_the_last_item() {
        let users = Users::default();
        let (conn, ch) = (Conn::from_bits(5), channel(5, 9));
        assert!(users.is_empty());
        assert!(users.change(conn, || true, |e| e.conn = Some(User(pointer(1)))));
        let name = QueuedEngine::channel_bits(ch);
        assert!(users.change(
            conn,
            || true,
            |e| {
                e.channels.insert(name, User(pointer(2)));
            }
        ));
        assert_eq!(users.conn(conn), pointer(1));
        assert_eq!(users.channel(ch), (pointer(1), pointer(2)));
        assert_eq!(users.channel(channel(5, 10)), (pointer(1), pointer(0)));
        assert_eq!(users.conn(Conn::from_bits(7)), pointer(0));
        users.end_channel(ch);
        assert_eq!(users.channel(ch), (pointer(1), pointer(0)));
        users.end_conn(conn);
        assert!(users.is_empty());
        users.end_conn(conn);
        assert!(users.is_empty());
        assert_eq!(users.conn(conn), pointer(0));
    }

    #[test]
    fn what_has_ended_takes_no_pointer() {
        let users = Users::default();
        let conn = Conn::from_bits(5);
        assert!(!users.change(conn, || false, |_| ()));
        assert!(users.is_empty());
    }
}
