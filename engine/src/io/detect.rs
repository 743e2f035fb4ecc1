//! Which driver works here: found out by using them on loopback, step by step.

use super::{Capabilities, DriverChoice, DriverConfig, DriverError};
use crate::sys;
use std::fmt;
use std::io;

/// One thing that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeStep {
    /// What, in a few words.
    pub name: &'static str,
    /// It works.
    pub ok: bool,
    /// What was found, or why it does not work, in words; may be empty.
    pub detail: String,
}

/// What [`probe`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeReport {
    /// The kernel's release; empty where there is none to read.
    pub kernel: String,
    /// The steps of the io_uring probe, up to the first that the driver needs and that failed.
    pub uring: Vec<ProbeStep>,
    /// The steps of the mio probe.
    pub mio: Vec<ProbeStep>,
    /// The driver that [`DriverChoice::Auto`] takes.
    pub chosen: DriverChoice,
    /// Why not io_uring, when it is not chosen.
    pub why_not_uring: Option<String>,
}

impl ProbeReport {
    /// The driver to use for a wish.
    ///
    /// # Errors
    /// `Unavailable`, with the reason in words, for a driver that does not work here.
    pub fn choose(&self, wish: DriverChoice) -> Result<DriverChoice, DriverError> {
        match wish {
            DriverChoice::Mio => Ok(DriverChoice::Mio),
            DriverChoice::Auto => Ok(self.chosen),
            DriverChoice::Uring => match self.uring.iter().find(|step| !step.ok) {
                None if !self.uring.is_empty() => Ok(DriverChoice::Uring),
                failed => Err(DriverError::Unavailable {
                    driver: "uring",
                    reason: failed.map_or_else(
                        || "this system has no io_uring".to_owned(),
                        |step| format!("{}: {}", step.name, step.detail),
                    ),
                }),
            },
        }
    }
}

impl fmt::Display for ProbeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.kernel.is_empty() {
            writeln!(f, "kernel {}", self.kernel)?;
        }
        for (driver, steps) in [("uring", &self.uring), ("mio", &self.mio)] {
            for step in steps {
                let mark = if step.ok { "ok" } else { "no" };
                write!(f, "{driver:5} {mark}  {}", step.name)?;
                if !step.detail.is_empty() {
                    write!(f, ": {}", step.detail)?;
                }
                writeln!(f)?;
            }
        }
        write!(f, "auto chooses {}", self.chosen)?;
        if let Some(why) = &self.why_not_uring {
            write!(f, " ({why})")?;
        }
        Ok(())
    }
}

/// Oldest kernel on which `auto` takes io_uring.
const URING_FLOOR: (u32, u32) = (6, 6);

/// Major and minor of a release such as `6.12.3-generic`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Tries the drivers on loopback, with small pools. Takes a few milliseconds, or a second for each
/// where nothing passes the loopback interface; leaves nothing open.
/// It says nothing about the network cards of this machine.
pub fn probe() -> ProbeReport {
    let kernel = sys::kernel_release();
    let mio = steps::mio();
    let uring = steps::uring();
    let failed = uring.iter().find(|step| !step.ok);
    let why_not_uring = if uring.is_empty() {
        Some("io_uring is a part of Linux".to_owned())
    } else if let Some(step) = failed {
        Some(format!("{}: {}", step.name, step.detail))
    } else if version(&kernel).is_some_and(|v| v < URING_FLOOR) {
        let (major, minor) = URING_FLOOR;
        Some(format!("kernel {kernel} is older than {major}.{minor}"))
    } else {
        None
    };
    let chosen = if why_not_uring.is_none() { DriverChoice::Uring } else { DriverChoice::Mio };
    ProbeReport { kernel, uring, mio, chosen, why_not_uring }
}

/// Probes if the wish makes it necessary, chooses, and logs what `auto` came to.
///
/// # Errors
/// `Unavailable`, with the reason in words, for a driver that does not work here.
pub fn choose(wish: DriverChoice) -> Result<DriverChoice, DriverError> {
    if wish == DriverChoice::Mio {
        return Ok(wish);
    }
    let report = probe();
    if wish == DriverChoice::Auto {
        match &report.why_not_uring {
            None => tracing::info!(driver = "uring", "driver chosen"),
            Some(reason) => tracing::warn!(driver = "mio", reason, "driver chosen: not io_uring"),
        }
    }
    report.choose(wish)
}

fn small() -> DriverConfig {
    DriverConfig {
        rx_buffers: 16,
        rx_posted: 8,
        tx_buffers: 4,
        lease_reserve: 8,
        max_sockets: 4,
        ..DriverConfig::default()
    }
}

mod steps {
    use super::super::{Batch, Driver, MioDriver, TxMeta};
    use super::*;
    use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
    use std::time::{Duration, Instant};

    const PATIENCE: Duration = Duration::from_secs(1);
    const SEGMENT: usize = 600;
    const SEGMENTS: usize = 8;

    fn step(name: &'static str, result: Result<String, String>) -> ProbeStep {
        let ok = result.is_ok();
        ProbeStep { name, ok, detail: result.unwrap_or_else(|e| e) }
    }

    pub(super) fn mio() -> Vec<ProbeStep> {
        match MioDriver::new(&small()) {
            Err(error) => vec![step("creating the driver", Err(error.to_string()))],
            Ok(driver) => traffic(driver),
        }
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn uring() -> Vec<ProbeStep> {
        Vec::new()
    }

    #[cfg(target_os = "linux")]
    pub(super) fn uring() -> Vec<ProbeStep> {
        let driver = match super::super::UringDriver::new(&small()) {
            Ok(driver) => driver,
            Err(DriverError::Unavailable { reason, .. }) => {
                return vec![step("setting up a ring", Err(reason))];
            }
            Err(error) => return vec![step("setting up a ring", Err(error.to_string()))],
        };
        let (used, missing) = driver.flags();
        let mut detail = used.join(" ");
        if !missing.is_empty() {
            detail = format!("{detail}; this kernel lacks {}", missing.join(" "));
        }
        let wake = if driver.wakes_by_message() { "by message" } else { "by eventfd" };
        let mut steps = vec![
            step("setting up a ring with provided buffers", Ok(detail)),
            step("waking", Ok(wake.to_owned())),
        ];
        steps.extend(traffic(driver));
        steps
    }

    /// Sends to itself through a real socket.
    fn traffic<D: Driver>(mut driver: D) -> Vec<ProbeStep> {
        let mut steps = Vec::new();
        let (socket, remote) = match open(&mut driver) {
            Ok(open) => open,
            // A fresh network namespace: nothing speaks against the driver.
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                let detail = "not tried: the loopback interface is down";
                steps.push(step("traffic", Ok(detail.to_owned())));
                return steps;
            }
            Err(error) => {
                steps.push(step("adding a socket", Err(error.to_string())));
                return steps;
            }
        };
        if is_loopback_barred() {
            let detail = "not tried: the loopback interface lets no datagrams pass";
            steps.push(step("traffic", Ok(detail.to_owned())));
            return steps;
        }
        let trials: [(&str, Trial<D>); 4] = [
            ("sending and receiving a datagram", one),
            ("receiving on after an empty datagram", empty),
            ("sending and receiving a train", train),
            ("being woken", woken),
        ];
        for (name, trial) in trials {
            let result = trial(&mut driver, socket, remote);
            let ok = result.is_ok();
            steps.push(step(name, result));
            if !ok {
                break;
            }
        }
        steps
    }

    type Trial<D> = fn(&mut D, u16, SocketAddr) -> Result<String, String>;

    fn one<D: Driver>(driver: &mut D, socket: u16, remote: SocketAddr) -> Result<String, String> {
        exchange(driver, socket, remote, 1).map(|_| String::new())
    }

    /// An empty datagram must not stop the receiving.
    fn empty<D: Driver>(driver: &mut D, socket: u16, remote: SocketAddr) -> Result<String, String> {
        exchange(driver, socket, remote, 0)?;
        one(driver, socket, remote)
    }

    fn train<D: Driver>(driver: &mut D, socket: u16, remote: SocketAddr) -> Result<String, String> {
        let strides = exchange(driver, socket, remote, SEGMENTS)?;
        let Capabilities { gso, gro, .. } = *driver.capabilities();
        let sent = match (gso, driver.stats().gso_refused) {
            (true, 0) => "segmented by the kernel",
            (true, _) => "segmentation refused by the kernel, so segmented here",
            (false, _) => "segmented here: the kernel does not",
        };
        let merged = strides.iter().any(|&n| n > 1);
        let received = match (gro, merged) {
            (true, true) => "received merged",
            (true, false) => "not merged when received",
            (false, _) => "never merged when received: the kernel does not",
        };
        Ok(format!("{sent}, {received}"))
    }

    fn woken<D: Driver>(driver: &mut D, _: u16, _: SocketAddr) -> Result<String, String> {
        driver.waker().wake();
        let start = Instant::now();
        driver.poll(Some(PATIENCE), &mut Batch::default()).map_err(|e| e.to_string())?;
        if start.elapsed() < PATIENCE { Ok(String::new()) } else { Err("late".into()) }
    }

    /// Whether a datagram of a plain socket does not arrive: where a filter drops it, nothing speaks
    /// against the driver. Errors of another kind are for the trials to find.
    fn is_loopback_barred() -> bool {
        let open = || {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            socket.set_read_timeout(Some(PATIENCE))?;
            let address = socket.local_addr()?;
            Ok::<_, io::Error>((socket, address))
        };
        let Ok((socket, address)) = open() else { return false };
        let barred = |error: io::Error| {
            use io::ErrorKind::{PermissionDenied, TimedOut, WouldBlock};
            matches!(error.kind(), PermissionDenied | TimedOut | WouldBlock)
        };
        socket.send_to(&[1], address).and_then(|_| socket.recv(&mut [0])).is_err_and(barred)
    }

    fn open<D: Driver>(driver: &mut D) -> io::Result<(u16, SocketAddr)> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let sizes = sys::BufferSizes { receive: 256 * 1024, send: 256 * 1024 };
        let socket = sys::bind_group(address, 1, sizes)?
            .pop()
            .ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))?;
        let address = socket.local_addr()?;
        Ok((driver.add_socket(socket)?, address))
    }

    /// Sends a train of `segments` packets (0: an empty one) and receives it. Returns how many
    /// packets each received item had.
    fn exchange<D: Driver>(
        driver: &mut D,
        socket: u16,
        remote: SocketAddr,
        segments: usize,
    ) -> Result<Vec<usize>, String> {
        let len = segments * SEGMENT;
        let mut buf = driver.lend().ok_or("no transmit buffer")?;
        for (i, byte) in driver.bytes(&mut buf)[..len].iter_mut().enumerate() {
            *byte = (i % 251) as u8;
        }
        let segment = SEGMENT.min(len);
        let meta = TxMeta { socket, remote, local: None, len, segment, ecn: 2, probe: false };
        driver.send(buf, meta);
        let (mut batch, mut items, mut received) = (Batch::default(), Vec::new(), 0);
        let start = Instant::now();
        while received < len || items.is_empty() {
            if start.elapsed() > PATIENCE {
                return Err(format!("{received} of {len} bytes arrived"));
            }
            driver
                .poll(Some(Duration::from_millis(50)), &mut batch)
                .map_err(|e| format!("polling: {e}"))?;
            if let Some(failure) = batch.failures.pop() {
                return Err(format!("sending: {:?}", failure.error));
            }
            for item in batch.rx.drain(..) {
                let bytes = driver.rx_bytes(&item);
                let intact =
                    bytes.iter().enumerate().all(|(i, b)| *b == ((received + i) % 251) as u8);
                received += item.len;
                items.push(item.segments());
                let (remote_ok, stride_ok) =
                    (item.remote == remote, item.len <= SEGMENT || item.stride == SEGMENT);
                driver.release(item);
                if !(intact && remote_ok && stride_ok) {
                    return Err("what arrived is not what was sent".to_owned());
                }
            }
        }
        Ok(items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(version("6.12.3-generic"), Some((6, 12)));
        assert_eq!(version("5.4"), Some((5, 4)));
        assert_eq!(version("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(version(""), None);
        assert!((6, 10) > URING_FLOOR && (5, 19) < URING_FLOOR);
    }

    #[test]
    fn the_probe_finds_a_driver_and_says_why() {
        let report = probe();
        println!("{report}");
        assert!(report.mio.iter().all(|s| s.ok), "{report}");
        assert_eq!(report.choose(DriverChoice::Mio).unwrap(), DriverChoice::Mio);
        assert_eq!(report.choose(DriverChoice::Auto).unwrap(), report.chosen);
        assert_eq!(report.why_not_uring.is_none(), report.chosen == DriverChoice::Uring);
        assert_eq!(
            report.choose(DriverChoice::Uring).is_ok(),
            !report.uring.is_empty() && report.uring.iter().all(|s| s.ok)
        );
    }

    /// A filter on the loopback interface costs a moment, and no driver.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_loopback_that_lets_nothing_pass_speaks_against_no_driver() {
        use crate::sys::linux::isolate::{private_network, run};
        let chosen = probe().chosen;
        let barred = || {
            private_network(65_536)
                && run("nft", &["add", "table", "inet", "barred"])
                && run(
                    "nft",
                    &[
                        "add chain inet barred in { type filter hook input priority 0; policy drop; }",
                    ],
                )
        };
        let found = std::thread::spawn(move || barred().then(probe)).join().unwrap();
        let Some(report) = found else {
            return eprintln!("skipped: needs root, iproute2 and nftables");
        };
        assert_eq!(report.chosen, chosen, "{report}");
        let tried = report.mio.iter().chain(&report.uring).filter(|s| s.name == "traffic");
        assert!(tried.count() >= 1, "{report}");
    }

    #[test]
    fn a_forced_driver_that_does_not_work_is_an_error_in_words() {
        let report = ProbeReport {
            kernel: "6.18".into(),
            uring: vec![ProbeStep {
                name: "setting up a ring",
                ok: false,
                detail: "not permitted".into(),
            }],
            mio: vec![],
            chosen: DriverChoice::Mio,
            why_not_uring: Some("setting up a ring: not permitted".into()),
        };
        let error = report.choose(DriverChoice::Uring).unwrap_err().to_string();
        assert_eq!(error, "the uring driver is not available: setting up a ring: not permitted");
        assert!(report.to_string().contains("auto chooses mio (setting up a ring: not permitted)"));
    }
}
