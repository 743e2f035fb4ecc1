//! Two pinned threads, and the measured time between two marks.

use crate::cpu::ThreadClock;
use crate::{CpuSeconds, Setup};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

/// How often the measuring thread looks whether the two still run.
const LOOK: Duration = Duration::from_millis(50);
/// Without news from the receiver for this long, what is under way counts as lost.
const WRITE_OFF: Duration = Duration::from_millis(20);

/// What the threads know of each other.
#[derive(Default)]
pub struct Link {
    control: Lines<Control>,
    /// Written by the receiver.
    tally: Lines<Tally>,
    /// Both threads share a CPU: spinning must let the other one run.
    shared_cpu: bool,
}

/// Keeps what one thread writes out of the cache lines of the others.
#[derive(Default)]
#[repr(align(128))]
struct Lines<T>(T);

#[derive(Default)]
struct Control {
    stop: AtomicBool,
    measuring: AtomicBool,
}

#[derive(Default)]
struct Tally {
    packets: AtomicU64,
    bytes: AtomicU64,
    corrupt: AtomicU64,
    lost: AtomicU64,
    /// Packets sent that the receiver is past.
    past: AtomicU64,
}

/// What a receiver has seen, in its own memory until told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub packets: u64,
    pub bytes: u64,
    pub corrupt: u64,
    pub lost: u64,
}

/// What happened in the measured time.
pub struct Measured<C, S> {
    pub seconds: f64,
    pub counts: Counts,
    pub cpu: CpuSeconds,
    /// What the client gave.
    pub client: C,
    /// What the server gave.
    pub server: S,
}

impl Link {
    /// The measurement is over.
    pub fn stopped(&self) -> bool {
        self.control.0.stop.load(Ordering::Relaxed)
    }

    /// The warm-up is over.
    pub fn measuring(&self) -> bool {
        self.control.0.measuring.load(Ordering::Relaxed)
    }

    /// Between two attempts.
    pub fn relax(&self) {
        if self.shared_cpu {
            thread::yield_now();
        } else {
            std::hint::spin_loop();
        }
    }

    /// The receiver tells what it has seen, and that it is past packet `past` − 1.
    pub fn tell(&self, counts: &Counts, past: u64) {
        let tally = &self.tally.0;
        tally.packets.store(counts.packets, Ordering::Relaxed);
        tally.bytes.store(counts.bytes, Ordering::Relaxed);
        tally.corrupt.store(counts.corrupt, Ordering::Relaxed);
        tally.lost.store(counts.lost, Ordering::Relaxed);
        tally.past.store(past, Ordering::Release);
    }

    fn counts(&self) -> Counts {
        let tally = &self.tally.0;
        Counts {
            packets: tally.packets.load(Ordering::Relaxed),
            bytes: tally.bytes.load(Ordering::Relaxed),
            corrupt: tally.corrupt.load(Ordering::Relaxed),
            lost: tally.lost.load(Ordering::Relaxed),
        }
    }

    fn stop(&self) {
        self.control.0.stop.store(true, Ordering::Relaxed);
    }
}

/// The sender's view of how much is under way.
pub struct Window {
    packets: u64,
    /// Packets that are no longer under way.
    past: u64,
}

impl Window {
    /// At most `packets` under way.
    pub fn new(packets: usize) -> Self {
        Self { packets: packets.max(1) as u64, past: 0 }
    }

    /// Waits until `more` packets may follow the `sent` ones; false when the end came first.
    pub fn wait(&mut self, link: &Link, sent: u64, more: u64) -> bool {
        let room = |past: u64| sent + more <= past + self.packets.max(more);
        if room(self.past) {
            return !link.stopped();
        }
        let begun = Instant::now();
        loop {
            for _ in 0..1000 {
                self.past = self.past.max(link.tally.0.past.load(Ordering::Acquire));
                if room(self.past) {
                    return !link.stopped();
                }
                if link.stopped() {
                    return false;
                }
                link.relax();
            }
            if begun.elapsed() > WRITE_OFF {
                self.past = sent;
            }
        }
    }
}

/// Runs `client` and `server`, each on a thread pinned to its CPU, until the measured time is over.
/// Both return once [`Link::stopped`] says so.
pub fn run<C: Send, S: Send>(
    setup: &Setup,
    client: impl FnOnce(&Link) -> io::Result<C> + Send,
    server: impl FnOnce(&Link) -> io::Result<S> + Send,
) -> io::Result<Measured<C, S>> {
    let link = Link { shared_cpu: setup.client_cpu == setup.server_cpu, ..Link::default() };
    let (link, (client_cpu, server_cpu)) = (&link, (setup.client_cpu, setup.server_cpu));
    thread::scope(|scope| {
        let (tell, told) = mpsc::channel();
        let tell_client = tell.clone();
        let server = scope.spawn(move || pinned(server_cpu, link, &tell, server));
        let server_clock = told.recv().ok();
        let client = scope.spawn(move || pinned(client_cpu, link, &tell_client, client));
        let client_clock = told.recv().ok();
        let begun = Instant::now();
        sleep(begun, setup.warm_up, &client, &server);
        let cpu = || {
            let of = |clock: &Option<ThreadClock>| clock.as_ref().and_then(ThreadClock::seconds);
            (of(&client_clock), of(&server_clock))
        };
        let (first, cpu_first, begun) = (link.counts(), cpu(), Instant::now());
        link.control.0.measuring.store(true, Ordering::Relaxed);
        sleep(begun, setup.time, &client, &server);
        let (last, cpu_last, seconds) = (link.counts(), cpu(), begun.elapsed().as_secs_f64());
        link.stop();
        let (client, server) = (joined(client), joined(server));
        let used = |a: Option<f64>, b: Option<f64>| Some((b? - a?).max(0.0));
        Ok(Measured {
            seconds,
            counts: last.since(&first),
            cpu: CpuSeconds {
                client: used(cpu_first.0, cpu_last.0),
                server: used(cpu_first.1, cpu_last.1),
            },
            client: client?,
            server: server?,
        })
    })
}

impl Counts {
    fn since(&self, first: &Self) -> Self {
        Self {
            packets: self.packets - first.packets,
            bytes: self.bytes - first.bytes,
            corrupt: self.corrupt - first.corrupt,
            lost: self.lost - first.lost,
        }
    }
}

/// One of the two threads.
fn pinned<T>(
    cpu: usize,
    link: &Link,
    clock: &mpsc::Sender<ThreadClock>,
    work: impl FnOnce(&Link) -> io::Result<T>,
) -> io::Result<T> {
    let allowed = core_affinity::get_core_ids().unwrap_or_default();
    let pinned =
        allowed.into_iter().find(|core| core.id == cpu).is_some_and(core_affinity::set_for_current);
    let _ = clock.send(ThreadClock::current());
    let result = if pinned {
        work(link)
    } else {
        Err(io::Error::other(format!("cannot pin a thread to CPU {cpu}")))
    };
    // One that fails ends the other.
    link.stop();
    result
}

/// Until `time` after `begun`, or until one of the two has ended.
fn sleep<C, S>(
    begun: Instant,
    time: Duration,
    client: &ScopedJoinHandle<'_, C>,
    server: &ScopedJoinHandle<'_, S>,
) {
    while !client.is_finished() && !server.is_finished() {
        let left = time.saturating_sub(begun.elapsed());
        if left.is_zero() {
            return;
        }
        thread::sleep(left.min(LOOK));
    }
}

fn joined<T>(thread: ScopedJoinHandle<'_, io::Result<T>>) -> io::Result<T> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_opens_with_progress_and_writes_off_what_is_lost() {
        let link = Link::default();
        let mut window = Window::new(10);
        assert!(window.wait(&link, 0, 10));
        link.tell(&Counts::default(), 4);
        assert!(window.wait(&link, 10, 4));
        assert_eq!(window.past, 4);
        // No news: after a while everything counts as lost.
        assert!(window.wait(&link, 14, 1));
        assert_eq!(window.past, 14);
        link.stop();
        assert!(!window.wait(&link, 14, 1));
    }

    #[test]
    fn a_failure_ends_both() {
        let setup = Setup {
            client_cpu: crate::cpu::processors().0,
            server_cpu: crate::cpu::processors().1,
            time: Duration::from_secs(60),
            warm_up: Duration::ZERO,
            packet_bytes: 100,
        };
        let result = run(
            &setup,
            |_| Err::<(), _>(io::Error::other("broken")),
            |link| {
                while !link.stopped() {
                    thread::yield_now();
                }
                Ok(())
            },
        );
        assert_eq!(result.err().unwrap().to_string(), "broken");
    }
}
