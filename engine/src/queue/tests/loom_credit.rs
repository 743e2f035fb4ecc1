//! Credit of what the application has taken: none is lost, and none returned twice.

use super::*;
use crate::sync::atomic::Ordering;
use loom::thread;

/// What the application takes at once: a step of a channel, and enough to tell of an ended one.
const PART: u64 = 16 << 10;

/// The shard's half, which notes what it would tell the connection.
struct Shard {
    link: Arc<ShardLink>,
    channel: Channel,
    /// The connection that it has, by its cell.
    conn: u32,
    /// Bytes of the channel, and of ended ones.
    told: (u64, u64),
}

impl Shard {
    fn new(link: &Arc<ShardLink>, conn: Conn) -> Self {
        let channel = begin_channel(link, conn, 0);
        Self { link: link.clone(), channel, conn: conn.slot(), told: (0, 0) }
    }

    /// What is left to do when nothing more happens. A shard that was not woken does nothing.
    fn rest(&mut self) {
        while !self.link.mailbox.commands.is_empty() {
            self.turn();
        }
    }

    /// As a turn does it, with `service` and `return_credit`. No command is more than a poke.
    fn turn(&mut self) {
        while self.link.mailbox.commands.pop().is_some() {}
        self.link.begin_service();
        while let Some((index, bytes)) = self.link.next_ended() {
            self.told.1 += if index == self.conn { bytes } else { 0 };
        }
        while let Some(index) = self.link.next_credit() {
            let cell = self.link.channels.get(index).expect("there");
            self.told.0 += cell.released.take();
            cell.credit_step.store(PART, Ordering::SeqCst);
            self.link.tell_credit(index, cell);
        }
    }

    fn end_channel(&mut self) {
        let key = self.channel.key();
        self.told.1 += self.link.end_channel(key.slot, key.life);
    }
}

#[test]
fn loom_what_is_taken_returns_in_steps() {
    explore(3, || {
        let link = link(4, 10);
        let conn = begin_conn(&link);
        let mut shard = Shard::new(&link, conn);
        let channel = shard.channel;
        let receivers = [PART / 2, PART].map(|bytes| {
            let link = link.clone();
            thread::spawn(move || link.release(channel, bytes))
        });
        shard.turn();
        for receiver in receivers {
            receiver.join().unwrap();
        }
        shard.rest();
        let cell = link.channels.get(channel.key().slot).expect("there");
        let kept = cell.released.sum();
        assert!(kept < PART, "{kept} bytes are worth a word");
        assert_eq!(shard.told, (PART * 3 / 2 - kept, 0));
    });
}

/// A channel ends while its bytes are being taken, and another one begins in its cell.
#[test]
fn loom_what_is_taken_of_an_ended_channel_is_the_connections() {
    explore(3, || {
        let link = link(4, 10);
        let conn = begin_conn(&link);
        let mut shard = Shard::new(&link, conn);
        let channel = shard.channel;
        let receiver = {
            let link = link.clone();
            thread::spawn(move || {
                link.release(channel, PART * 5 / 8);
                link.release(channel, PART * 5 / 8);
            })
        };
        let opener = {
            let link = link.clone();
            thread::spawn(move || begin_channel(&link, conn, 0))
        };
        shard.turn();
        shard.end_channel();
        shard.turn();
        receiver.join().unwrap();
        let other = opener.join().unwrap();
        shard.rest();
        let kept = link.conns.get(conn.slot()).expect("there").released.sum();
        assert!(kept < PART, "{kept} bytes are worth a word");
        assert_eq!(shard.told.0 + shard.told.1 + kept, PART * 5 / 4);
        let cell = link.channels.get(other.key().slot).expect("there");
        assert_eq!(cell.released.sum(), 0, "a stranger's credit");
    });
}

/// A connection ends while bytes of its ended channels are being taken, and another one begins in
/// its cell: that one has nothing of them.
#[test]
fn loom_what_is_taken_of_an_ended_connection_is_nobodys() {
    explore(3, || {
        let link = link(4, 10);
        let conn = begin_conn(&link);
        let mut shard = Shard::new(&link, conn);
        let channel = shard.channel;
        let receiver = {
            let link = link.clone();
            thread::spawn(move || {
                link.release(channel, PART);
                link.release(channel, PART);
            })
        };
        let opener = {
            let link = link.clone();
            thread::spawn(move || begin_conn(&link))
        };
        shard.end_channel();
        shard.turn();
        let handle = conn.handle();
        link.conns.give_back(handle.slot, handle.generation);
        receiver.join().unwrap();
        let other = opener.join().unwrap();
        (shard.conn, shard.told) = (other.slot(), (0, 0));
        shard.rest();
        let cell = link.conns.get(other.handle().slot).expect("there");
        assert_eq!((shard.told, cell.released.sum()), ((0, 0), 0), "a stranger's credit");
    });
}
