//! Poll groups: no receiver sleeps while there is something, and nothing stays with a shard.

use super::*;
use crate::queue::event::{Event, Received};
use crate::queue::group::{PollGroup, Writer};
use loom::thread;
use std::time::Duration;

/// A group, and a shard's end of it.
struct Rig {
    group: PollGroup,
    writer: Writer,
    link: Arc<ShardLink>,
    /// The group knows them, and keeps none.
    _links: Arc<Vec<Arc<ShardLink>>>,
    channel: Channel,
}

fn rig() -> Rig {
    let link = link(4, 10);
    let links = Arc::new(vec![link.clone()]);
    let group = PollGroup::new(0, 1000, Arc::downgrade(&links), None, None);
    let writer = Writer::new(group.clone(), link.clone());
    let conn = begin_conn(&link);
    let channel = begin_channel(&link, conn, 0);
    Rig { group, writer, link, _links: links, channel }
}

impl Rig {
    fn event(&mut self) {
        self.writer.event(Event::Writable { channel: self.channel });
    }

    /// One batch of so many events.
    fn batch(&mut self, events: u32) {
        (0..events).for_each(|_| self.event());
        self.writer.hand_over();
    }
}

fn receive(group: &PollGroup, most: usize) -> usize {
    let mut out: Vec<Received> = Vec::new();
    let count = group.recv_many(&mut out, most, None);
    assert_eq!(count, out.len());
    count
}

#[test]
fn loom_a_receiver_gets_what_a_shard_hands_over() {
    explore(3, || {
        let mut rig = rig();
        let group = rig.group.clone();
        let receiver = thread::spawn(move || receive(&group, 9));
        rig.batch(2);
        assert_eq!(receiver.join().unwrap(), 2);
    });
}

/// What finds no place stays with the shard, which is told when there is one.
#[test]
fn loom_nothing_stays_with_the_shard() {
    explore(3, || {
        let mut rig = rig();
        let group = rig.group.clone();
        let receiver = thread::spawn(move || receive(&group, 9));
        rig.batch(1);
        rig.batch(1);
        let mut received = receiver.join().unwrap();
        // A shard that was not told does nothing.
        if rig.link.mailbox.commands.pop().is_some() {
            rig.link.begin_service();
            rig.writer.hand_over();
        }
        received += rig.group.recv_many(&mut Vec::new(), 9, Some(Duration::ZERO));
        assert_eq!(received, 2);
    });
}

/// Each of two receivers takes one of the two events of a batch.
#[test]
fn loom_no_receiver_sleeps_beside_a_begun_batch() {
    explore(3, || {
        let mut rig = rig();
        let receivers = [(); 2].map(|()| {
            let group = rig.group.clone();
            thread::spawn(move || receive(&group, 1))
        });
        rig.batch(2);
        for receiver in receivers {
            assert_eq!(receiver.join().unwrap(), 1);
        }
    });
}

/// Two batches that are begun at once: a model's group has one place for such.
#[test]
fn loom_no_receiver_sleeps_beside_batches_begun_too() {
    explore(2, || {
        let mut rig = rig();
        let receivers = [(); 2].map(|()| {
            let group = rig.group.clone();
            thread::spawn(move || receive(&group, 1) + receive(&group, 1))
        });
        rig.batch(2);
        rig.batch(2);
        while rig.writer.keeps_back() {
            thread::yield_now();
            rig.writer.hand_over();
        }
        for receiver in receivers {
            assert_eq!(receiver.join().unwrap(), 2);
        }
    });
}

#[test]
fn loom_a_wake_ends_every_wait() {
    explore(2, || {
        let rig = rig();
        let receivers = [(); 2].map(|()| {
            let group = rig.group.clone();
            thread::spawn(move || group.recv_many(&mut Vec::new(), 9, None))
        });
        while rig.group.sleepers() < 2 {
            thread::yield_now();
        }
        rig.group.wake();
        for receiver in receivers {
            assert_eq!(receiver.join().unwrap(), 0);
        }
    });
}
