//! How other threads reach a shard: bounded queues, and a wake only if the shard sleeps.
//!
//! The shard announces a sleep, looks into its queues once more and only then sleeps; whoever puts
//! something into a queue looks at the announcement afterwards. With a sequentially consistent
//! fence on both sides, one of the two sees the other. An awake shard costs its senders no system
//! call and no write to a shared cache line beyond the queue's own.

use super::control::Control;
use super::forward::Forwarded;
use crate::io::Waker;
use crate::sync::atomic::{AtomicBool, Ordering, fence};
use crate::sync::{ArrayQueue, OnceLock};

/// Control messages that wait for one shard at once; senders of these retry.
const CONTROLS: usize = 256;

/// The part of a shard's mailbox that does not depend on the handler.
pub(crate) struct Port {
    pub controls: ArrayQueue<Control>,
    pub forwards: ArrayQueue<Forwarded>,
    /// Set while the shard sleeps or is about to.
    parked: AtomicBool,
    /// The shard takes nothing any more.
    closed: AtomicBool,
    waker: OnceLock<Waker>,
}

impl Port {
    pub(crate) fn new(forward_queue: usize) -> Self {
        Self {
            controls: ArrayQueue::new(CONTROLS),
            forwards: ArrayQueue::new(forward_queue),
            parked: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            waker: OnceLock::new(),
        }
    }

    /// The shard has its driver.
    pub(crate) fn set_waker(&self, waker: Waker) {
        let _ = self.waker.set(waker);
    }

    /// After something was put into a queue: ends the shard's sleep if it sleeps.
    #[inline]
    pub(crate) fn notify(&self) {
        fence(Ordering::SeqCst);
        if self.parked.load(Ordering::Relaxed) {
            self.wake();
        }
    }

    /// Ends the shard's sleep, or prevents the next one.
    #[cold]
    pub(crate) fn wake(&self) {
        self.parked.store(false, Ordering::Relaxed);
        if let Some(waker) = self.waker.get() {
            waker.wake();
        }
    }

    /// The shard is about to sleep. `false` when there is something in a queue, seen after senders
    /// can know of the sleep.
    pub(crate) fn park<C>(&self, mailbox: &Mailbox<C>) -> bool {
        self.parked.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.is_empty() && mailbox.commands.is_empty()
    }

    /// The shard is awake. Written only after a sleep: senders read this for every command.
    #[inline]
    pub(crate) fn unpark(&self) {
        if self.parked.load(Ordering::Relaxed) {
            self.parked.store(false, Ordering::Relaxed);
        }
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Hands over a control message. `Err` when the shard is gone or does not keep up.
    pub(crate) fn control(&self, mut message: Control) -> Result<(), Control> {
        for _ in 0..CONTROLS {
            if self.is_closed() {
                return Err(message);
            }
            match self.controls.push(message) {
                Ok(()) => {
                    self.notify();
                    return Ok(());
                }
                Err(back) => {
                    message = back;
                    self.wake();
                    std::thread::yield_now();
                }
            }
        }
        Err(message)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.controls.is_empty() && self.forwards.is_empty()
    }
}

/// A shard's whole mailbox.
pub(crate) struct Mailbox<C> {
    pub commands: ArrayQueue<C>,
}

impl<C> Mailbox<C> {
    pub(crate) fn new(commands: usize) -> Self {
        Self { commands: ArrayQueue::new(commands) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;
    use std::time::Duration;

    #[test]
    fn nothing_is_lost_and_nobody_sleeps_on_work() {
        // Two senders and a receiver that parks whenever it finds nothing. The waker is a thread
        // unpark here; a lost wake shows as a time-out.
        const EACH: u64 = 20_000;
        struct Rig {
            port: Port,
            mailbox: Mailbox<u64>,
            wakes: AtomicU64,
            sleeper: OnceLock<std::thread::Thread>,
        }
        let rig = Arc::new(Rig {
            port: Port::new(1),
            mailbox: Mailbox::new(64),
            wakes: AtomicU64::new(0),
            sleeper: OnceLock::new(),
        });
        let receiver = {
            let rig = rig.clone();
            std::thread::spawn(move || {
                rig.sleeper.set(std::thread::current()).unwrap();
                let (mut count, mut sum) = (0, 0);
                while count < 2 * EACH {
                    if let Some(n) = rig.mailbox.commands.pop() {
                        count += 1;
                        sum += n;
                        continue;
                    }
                    if rig.port.park(&rig.mailbox) {
                        let before = std::time::Instant::now();
                        std::thread::park_timeout(Duration::from_secs(20));
                        assert!(before.elapsed() < Duration::from_secs(20), "a wake was lost");
                    }
                    rig.port.unpark();
                }
                sum
            })
        };
        while rig.sleeper.get().is_none() {
            std::thread::yield_now();
        }
        let senders: Vec<_> = (0..2)
            .map(|_| {
                let rig = rig.clone();
                std::thread::spawn(move || {
                    for n in 0..EACH {
                        while rig.mailbox.commands.push(n).is_err() {
                            std::thread::yield_now();
                        }
                        fence(Ordering::SeqCst);
                        if rig.port.parked.load(Ordering::Relaxed) {
                            rig.wakes.fetch_add(1, Ordering::Relaxed);
                            rig.sleeper.get().unwrap().unpark();
                        }
                    }
                })
            })
            .collect();
        for s in senders {
            s.join().unwrap();
        }
        assert_eq!(receiver.join().unwrap(), 2 * (EACH * (EACH - 1) / 2));
    }

    #[test]
    fn a_closed_port_takes_no_control_messages() {
        let port = Port::new(1);
        port.close();
        assert!(port.control(Control::Stop).is_err());
        let port = Port::new(1);
        for _ in 0..CONTROLS {
            port.control(Control::Stop).unwrap();
        }
        assert!(port.control(Control::Stop).is_err(), "bounded");
    }
}
