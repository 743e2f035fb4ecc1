//! Sleeping shards: nobody sleeps on what was put into a queue or a list.

use super::*;
use crate::io::waker::{Parking, Signal};
use crate::shard::control::Control;
use crate::sync::{Condvar, Mutex};
use loom::thread;

/// Stands for what a driver sleeps in.
#[derive(Clone)]
struct Bell(Arc<(Mutex<bool>, Condvar)>);

impl Bell {
    fn wait(&self) {
        let mut rung = self.0.0.lock().unwrap();
        while !std::mem::take(&mut *rung) {
            rung = self.0.1.wait(rung).unwrap();
        }
    }
}

impl Signal for Bell {
    fn signal(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }
}

/// A shard's loop without a protocol.
struct Shard {
    link: Arc<ShardLink>,
    parking: Arc<Parking>,
    bell: Bell,
    /// What was found in the mailbox, in the lists and among the controls.
    found: [u32; 3],
}

impl Shard {
    fn new(link: &Arc<ShardLink>) -> Self {
        let bell = Bell(Arc::new((Mutex::new(false), Condvar::new())));
        let parking = Parking::new(Box::new(bell.clone()));
        link.port.set_waker(parking.waker());
        Self { link: link.clone(), parking, bell, found: [0; 3] }
    }

    fn has_mail(&self) -> bool {
        !self.link.port.is_empty() || !self.link.mailbox.commands.is_empty()
    }

    /// As `Shard::wait` does it, with a driver that hears nothing but its waker.
    fn wait(&self) {
        if self.has_mail() {
            return;
        }
        if self.link.port.park(&self.link.mailbox) && self.parking.park() {
            self.bell.wait();
        }
        self.parking.unpark();
        self.link.port.unpark();
    }

    /// As a turn does it, and the handler at its end.
    fn turn(&mut self) {
        while self.link.port.controls.pop().is_some() {
            self.found[2] += 1;
        }
        while let Some(command) = self.link.mailbox.commands.pop() {
            self.found[0] += u32::from(!matches!(command, Command::Poke));
        }
        self.link.begin_service();
        while self.link.handed.pop().is_some() {
            self.found[1] += 1;
        }
    }

    /// Turns until everything is found that is expected. Loom tells when it sleeps for ever.
    fn run(&mut self, expected: [u32; 3]) {
        while self.found != expected {
            self.wait();
            self.turn();
        }
    }
}

fn flush(link: &ShardLink) {
    link.push(Command::Flush { cell: 0, life: 0 }).expect("there is room");
}

#[test]
fn loom_a_shard_never_sleeps_on_commands() {
    explore(3, || {
        let link = link(4, 10);
        let mut shard = Shard::new(&link);
        let senders = [2, 1].map(|count| {
            let link = link.clone();
            thread::spawn(move || (0..count).for_each(|_| flush(&link)))
        });
        shard.run([3, 0, 0]);
        senders.into_iter().for_each(|sender| sender.join().unwrap());
    });
}

#[test]
fn loom_a_shard_never_sleeps_on_controls() {
    explore(3, || {
        let link = link(4, 10);
        let mut shard = Shard::new(&link);
        let sender = {
            let link = link.clone();
            thread::spawn(move || {
                flush(&link);
                assert!(link.port.control(Control::Stop).is_ok());
            })
        };
        shard.run([1, 0, 1]);
        sender.join().unwrap();
    });
}

/// The mailbox has one place, which a command may have when the shard is told of the list.
#[test]
fn loom_the_lists_are_always_looked_at() {
    explore(3, || {
        let link = link(1, 10);
        let mut shard = Shard::new(&link);
        let hand = |flushes: bool| {
            let link = link.clone();
            thread::spawn(move || {
                let sent = flushes && link.push(Command::Flush { cell: 0, life: 0 }).is_ok();
                assert!(link.hand(Box::new(|_, _| ())));
                sent
            })
        };
        let (one, other) = (hand(true), hand(false));
        while shard.found[1] < 2 {
            shard.wait();
            shard.turn();
        }
        let sent = [one, other].map(|sender| sender.join().unwrap());
        shard.turn();
        assert_eq!(shard.found[0], u32::from(sent[0]));
    });
}

/// A wake-up ends a sleep, or keeps the shard from the next one.
#[test]
fn loom_a_wake_ends_a_sleep() {
    explore(3, || {
        let link = link(4, 10);
        let shard = Shard::new(&link);
        let waker = {
            let link = link.clone();
            thread::spawn(move || link.port.wake())
        };
        shard.wait();
        waker.join().unwrap();
    });
}

/// The same for a driver on whose descriptor a foreign loop sleeps: it is told whenever it is not
/// polling.
#[test]
fn loom_a_foreign_loop_is_told() {
    explore(3, || {
        let link = link(4, 10);
        let mut shard = Shard::new(&link);
        shard.parking.embed();
        let _ = link.port.park(&link.mailbox);
        let sender = {
            let link = link.clone();
            thread::spawn(move || (0..2).for_each(|_| flush(&link)))
        };
        while shard.found[0] < 2 {
            // What `LocalShard::poll` does, between a look for mail and a sleep of the loop.
            if !shard.has_mail() {
                shard.bell.wait();
            }
            shard.parking.unpark();
            shard.turn();
            let _ = link.port.park(&link.mailbox);
        }
        sender.join().unwrap();
    });
}
