//! Moves packets between the two devices when their time has come.

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use serde::Serialize;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};
use trunkline_link::Link;
use tun_rs::SyncDevice;

/// Packets read from a device before others have their turn.
const BATCH: usize = 64;
/// Largest packet of IP.
const LARGEST: usize = 65_536;
/// Buffers kept for later packets.
const KEPT: usize = 16_384;

/// How late packets were delivered, because this program did not run in time.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Lateness {
    packets: u64,
    total_ns: u64,
    /// The worst.
    pub max_ns: u64,
    /// Packets that were more than a millisecond late.
    pub over_1ms: u64,
}

impl Lateness {
    fn add(&mut self, late: Duration) {
        let ns = late.as_nanos() as u64;
        self.packets += 1;
        self.total_ns += ns;
        self.max_ns = self.max_ns.max(ns);
        self.over_1ms += u64::from(ns > 1_000_000);
    }

    /// Nanoseconds on average.
    pub fn mean_ns(&self) -> f64 {
        self.total_ns as f64 / self.packets.max(1) as f64
    }
}

/// One direction.
pub struct Way {
    from: usize,
    to: usize,
    /// What happens to packets.
    pub link: Link<Vec<u8>>,
    /// How exact it was.
    pub late: Lateness,
    /// Packets that the device at the far end did not take.
    pub refused: u64,
}

impl Way {
    fn new(from: usize, to: usize, link: Link<Vec<u8>>) -> Self {
        Self { from, to, link, late: Lateness::default(), refused: 0 }
    }
}

/// Both directions.
pub struct Forwarder {
    devices: [SyncDevice; 2],
    /// There and back.
    pub ways: [Way; 2],
    begun: Instant,
    buffer: Vec<u8>,
    spare: Vec<Vec<u8>>,
}

impl Forwarder {
    /// Between `devices`, the first of `links` from the first to the second.
    pub fn new(devices: [SyncDevice; 2], links: [Link<Vec<u8>>; 2]) -> Self {
        let [there, back] = links;
        Self {
            devices,
            ways: [Way::new(0, 1, there), Way::new(1, 0, back)],
            begun: Instant::now(),
            buffer: vec![0; LARGEST],
            spare: Vec::new(),
        }
    }

    /// Since the link has been there.
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Runs until something can be read from `wake`.
    ///
    /// # Errors
    /// A device is broken.
    pub fn run_until(&mut self, wake: &impl AsFd) -> io::Result<()> {
        loop {
            self.deliver()?;
            let [a, b, woken] = self.wait(wake)?;
            for (way, readable) in [a, b].into_iter().enumerate() {
                if readable {
                    self.fetch(way)?;
                }
            }
            if woken {
                return Ok(());
            }
        }
    }

    /// Sleeps until a device has packets, one is to be delivered, or there is something in `wake`.
    fn wait(&self, wake: &impl AsFd) -> io::Result<[bool; 3]> {
        let next = self.ways.iter().filter_map(|way| way.link.next_at()).min();
        let timeout = next.map(|at| TimeSpec::from(at.saturating_sub(self.begun.elapsed())));
        let poll = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let [a, b] = &self.devices;
        let mut fds = [poll(a.as_fd()), poll(b.as_fd()), poll(wake.as_fd())];
        match ppoll(&mut fds, timeout, None) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok([false; 3]),
            Err(e) => return Err(e.into()),
        }
        for (fd, side) in fds.iter().zip(["a", "b"]) {
            if fd.revents().is_some_and(|r| r.intersects(PollFlags::POLLERR | PollFlags::POLLHUP)) {
                return Err(io::Error::other(format!("the device of {side} is down")));
            }
        }
        Ok([0, 1, 2].map(|n| fds[n].any().unwrap_or(true)))
    }

    /// Takes packets from the device that a direction begins at.
    fn fetch(&mut self, way: usize) -> io::Result<()> {
        let way = &mut self.ways[way];
        for _ in 0..BATCH {
            let bytes = match self.devices[way.from].recv(&mut self.buffer) {
                Ok(bytes) => bytes,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            let now = self.begun.elapsed();
            let mut packet = self.spare.pop().unwrap_or_default();
            packet.clear();
            packet.extend_from_slice(&self.buffer[..bytes]);
            way.link.send(now, bytes, packet);
        }
        Ok(())
    }

    /// Gives packets whose time has come to the devices.
    fn deliver(&mut self) -> io::Result<()> {
        for way in &mut self.ways {
            loop {
                let now = self.begun.elapsed();
                let due = way.link.next_at();
                let Some(packet) = way.link.receive(now) else { break };
                way.late.add(now.saturating_sub(due.unwrap_or(now)));
                match self.devices[way.to].send(&packet) {
                    Ok(_) => {}
                    Err(e) if refuses(&e) => way.refused += 1,
                    Err(e) => return Err(e),
                }
                if self.spare.len() < KEPT {
                    self.spare.push(packet);
                }
            }
        }
        Ok(())
    }
}

/// Whether a device took a packet no more than this one.
fn refuses(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::InvalidInput)
        || error.raw_os_error() == Some(Errno::ENOBUFS as i32)
}
