//! What is admitted, and that whoever is not is told when there is room.

use super::*;
use crate::queue::command::Part;
use crate::sync::atomic::Ordering;
use loom::thread;
use std::collections::BTreeMap;
use std::sync::Mutex as Untracked;
use trunkline_proto::error::ApiError;

/// What only the shard has, and only it changes. (Not loom's: senders read how often they were told
/// before they send, and it is compared at the end.)
#[derive(Default)]
struct Side {
    /// Lives of the channels that have begun, by cell.
    lives: BTreeMap<u32, u32>,
    /// Writable events, by cell and life.
    told: BTreeMap<(u32, u32), u32>,
}

/// The shard's half without a connection: what is sent leaves at once.
struct Shard {
    link: Arc<ShardLink>,
    side: Untracked<Side>,
}

/// How a send ended: refused after so many Writable events.
type Sent = Result<(), (Channel, u32)>;

impl Shard {
    fn new(commands: usize, bytes: usize) -> Arc<Self> {
        Arc::new(Self { link: link(commands, bytes), side: Untracked::default() })
    }

    /// A channel that the shard knows of.
    fn channel(&self, conn: Conn) -> Channel {
        let channel = begin_channel(&self.link, conn, 0);
        self.begin(channel.key());
        channel
    }

    /// As `begin_channel` does it.
    fn begin(&self, key: ChannelKey) {
        self.side.lock().unwrap().lives.insert(key.slot, key.life);
        self.maybe_writable(key.slot);
    }

    /// As `end_channel` does it.
    fn end(&self, key: ChannelKey) {
        self.side.lock().unwrap().lives.remove(&key.slot);
        self.link.end_channel(key.slot, key.life);
    }

    fn told(&self, channel: Channel) -> u32 {
        let key = channel.key();
        self.side.lock().unwrap().told.get(&(key.slot, key.life)).copied().unwrap_or(0)
    }

    /// As the handler's.
    fn maybe_writable(&self, index: u32) {
        let Some(life) = self.side.lock().unwrap().lives.get(&index).copied() else { return };
        if self.link.channels.get(index).is_some_and(|cell| self.link.unblock(cell)) {
            *self.side.lock().unwrap().told.entry((index, life)).or_default() += 1;
        }
    }

    /// As `settle` does it.
    fn settle(&self, index: u32, bytes: u64) {
        let cell = self.link.channels.get(index).expect("there");
        if cell.unqueue(bytes) {
            self.maybe_writable(index);
        }
    }

    /// As `on_command` and `service` do it. `Finish` stands for the call that opens a channel.
    fn turn(&self) {
        let link = &self.link;
        while let Some(command) = link.mailbox.commands.pop() {
            match command {
                Command::Small { cell, len, .. } => self.settle(cell, u64::from(len)),
                Command::Many(pack) => {
                    let bytes = pack.bytes.len() as u64;
                    link.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
                    for part in &pack.parts {
                        self.settle(part.cell, u64::from(part.len));
                    }
                    link.packs.give_back(pack);
                }
                Command::Finish { cell, life } => self.begin(ChannelKey { slot: cell, life }),
                _ => {}
            }
        }
        link.begin_service();
        while let Some(index) = link.next_blocked() {
            self.maybe_writable(index);
        }
    }

    /// As `QueuedEngine::send` does it.
    fn send(&self, channel: Channel, len: usize) -> Sent {
        let (before, key) = (self.told(channel), channel.key());
        let command = Command::small(key.slot, key.life, &[0; 100][..len]);
        let sent = self.link.channel(channel).and_then(|cell| {
            self.link.admit(cell, len)?;
            self.link.push_data(channel, cell, len, 0, command)
        });
        refused(sent, channel, before)
    }

    /// As `QueuedEngine::send_many` does it, with one message for each of two channels.
    fn send_both(&self, channels: [Channel; 2], len: usize) -> Sent {
        let before = channels.map(|channel| self.told(channel));
        let mut pack = self.link.packs.take();
        let data = &[0; 100][..len];
        for (channel, before) in channels.into_iter().zip(before) {
            let cell = self.link.channel(channel).expect("open");
            let admitted = self.link.admit(cell, len);
            if admitted.is_err() {
                // The first is on its way; whoever sends tries again with the second.
                if !pack.parts.is_empty() {
                    self.push(&channels, pack, data, before)?;
                }
                return refused(admitted, channel, before);
            }
            let ChannelKey { slot: cell, life } = channel.key();
            pack.parts.push(Part { cell, life, len: len as u32 });
            pack.bytes.extend_from_slice(data);
        }
        self.push(&channels, pack, data, before[0])
    }

    fn push(
        &self,
        channels: &[Channel],
        pack: Box<crate::queue::command::Pack>,
        data: &[u8],
        before: u32,
    ) -> Sent {
        let messages: Vec<_> = channels.iter().map(|channel| (*channel, data)).collect();
        refused(self.link.push_many(&messages, pack), channels[0], before)
    }

    /// Nothing more is sent: whoever was refused must have been told, and nothing is counted any
    /// more. A shard that was not woken does nothing.
    fn check(&self, sent: impl IntoIterator<Item = Sent>) {
        while !self.link.mailbox.commands.is_empty() {
            self.turn();
        }
        for (channel, before) in sent.into_iter().filter_map(Result::err) {
            assert!(self.told(channel) > before, "a sender waits and is never told");
        }
        for index in [0, 1] {
            let queued = self.link.channels.get(index).map(|c| c.queued.load(Ordering::SeqCst));
            assert_eq!(queued.unwrap_or(0), 0);
        }
        assert_eq!(self.link.waiting_bytes.load(Ordering::SeqCst), 0);
    }
}

fn refused(sent: Result<(), ApiError>, channel: Channel, before: u32) -> Sent {
    match sent {
        Err(ApiError::WouldBlock(_)) => Err((channel, before)),
        // The channel ended before; what ended is not told anything.
        Ok(()) | Err(ApiError::InvalidHandle) => Ok(()),
        Err(error) => panic!("{error}"),
    }
}

/// Senders on one channel, on which `first` bytes are on their way.
fn senders<const N: usize>(
    interruptions: usize,
    (commands, bytes): (usize, usize),
    sizes: [usize; N],
    first: usize,
) {
    explore(interruptions, move || {
        let shard = Shard::new(commands, bytes);
        let conn = begin_conn(&shard.link);
        let channel = shard.channel(conn);
        if first > 0 {
            shard.send(channel, first).expect("empty");
        }
        let sender = |len| {
            let shard = shard.clone();
            thread::spawn(move || shard.send(channel, len))
        };
        let senders = sizes.map(sender);
        shard.turn();
        shard.check(senders.map(|sender| sender.join().unwrap()));
    });
}

#[test]
fn loom_a_sender_that_finds_its_channel_full_is_told() {
    senders(4, (4, 10), [8, 8], 8);
}

#[test]
fn loom_a_sender_that_finds_the_mailbox_full_is_told() {
    senders(4, (1, 100), [4, 4], 4);
}

#[test]
fn loom_senders_that_find_either_full_are_told() {
    senders(4, (1, 10), [8, 8], 0);
}

#[test]
fn loom_three_senders_are_told() {
    senders(3, (1, 10), [4, 8, 8], 0);
}

/// What `send_many` takes back makes room for others, on each of its channels.
#[test]
fn loom_what_is_taken_back_makes_room() {
    explore(3, || {
        let shard = Shard::new(1, 10);
        let conn = begin_conn(&shard.link);
        let channels = [(); 2].map(|()| shard.channel(conn));
        shard.send(channels[0], 1).expect("empty");
        let many = {
            let shard = shard.clone();
            thread::spawn(move || shard.send_both(channels, 8))
        };
        let single = {
            let shard = shard.clone();
            thread::spawn(move || shard.send(channels[1], 8))
        };
        shard.turn();
        shard.check([many.join().unwrap(), single.join().unwrap()]);
    });
}

/// A channel ends and another begins in its cell while somebody still sends on the first: whoever
/// sends on the second is told all the same, and nothing stays counted.
#[test]
fn loom_a_channel_is_told_whatever_was_sent_on_the_one_before() {
    explore(3, || {
        let shard = Shard::new(2, 10);
        let conn = begin_conn(&shard.link);
        let old = shard.channel(conn);
        let late = {
            let shard = shard.clone();
            thread::spawn(move || {
                let _ = shard.send(old, 8);
            })
        };
        let opener = {
            let shard = shard.clone();
            thread::spawn(move || {
                let new = begin_channel(&shard.link, conn, 0);
                let ChannelKey { slot: cell, life } = new.key();
                shard.link.push(Command::Finish { cell, life }).ok()?;
                Some(shard.send(new, 8))
            })
        };
        shard.end(old.key());
        shard.turn();
        late.join().unwrap();
        shard.check(opener.join().unwrap());
    });
}
