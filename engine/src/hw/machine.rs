//! What this machine has: its processors, its kernel, its network interfaces.

use super::tune::ethtool;
use std::collections::HashMap;
use std::fs;
use std::path::Path;

/// The driver of a virtual interface whose kind the kernel does not tell.
pub const UNKNOWN: &str = "unknown";

/// A network interface of this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nic {
    /// Its name.
    pub name: String,
    /// Its driver, as the kernel calls it; for those without a device `lo`, or the kind that the
    /// kernel tells (`veth`, `bridge`, `ifb`, …), or [`UNKNOWN`].
    pub driver: String,
    /// It has no device: it is made by the kernel.
    pub is_virtual: bool,
    /// Whether it is up.
    pub up: bool,
    /// Receive queues.
    pub rx_queues: usize,
    /// Transmit queues.
    pub tx_queues: usize,
    /// The NUMA node of its device; `None` where there is one node only or no device.
    pub numa_node: Option<u32>,
    /// Interrupts of its device.
    pub irqs: Vec<u32>,
    /// Processors that they come to, sorted; without those of which the system does not tell one.
    pub irq_cores: Vec<usize>,
    /// Number by which the kernel knows it; another one means another interface, whatever its name.
    pub index: u32,
}

/// What a profile is fitted to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Processors that the process may use.
    pub cores: Vec<usize>,
    /// Processors of each NUMA node; empty where the system does not tell.
    pub nodes: Vec<(u32, Vec<usize>)>,
    /// Processors that are threads of one core, for each core that has several; empty where the
    /// system does not tell.
    pub siblings: Vec<Vec<usize>>,
    /// Network interfaces, those with the default route first.
    pub nics: Vec<Nic>,
    /// The kernel's release, such as `6.12.3`; empty where it cannot be told.
    pub kernel: String,
}

impl Machine {
    /// This one. Where there is no `/sys`, it has no interfaces.
    pub fn this() -> Self {
        let kernel = crate::sys::kernel_release();
        let kind = |name: &str| ethtool(name).and_then(|device| device.driver()).ok();
        let (sys, proc) = (Path::new("/sys"), Path::new("/proc"));
        Self { kernel, ..Self::read(sys, proc, super::cores(), &kind) }
    }

    /// From trees like `/sys` and `/proc`, processors, and who is asked for the kind of an interface
    /// of which `/sys` does not tell it.
    pub fn read(
        sys: &Path,
        proc: &Path,
        cores: Vec<usize>,
        kind: &dyn Fn(&str) -> Option<String>,
    ) -> Self {
        let net = sys.join("class/net");
        let route = fs::read_to_string(proc.join("net/route")).unwrap_or_default();
        let names = fs::read_dir(&net).into_iter().flatten().flatten();
        let mut nics: Vec<Nic> = names
            .filter_map(|entry| entry.file_name().into_string().ok())
            .map(|name| Nic::read(&net.join(&name), proc, name, kind))
            .collect();
        let is_default = |nic: &Nic| {
            let mut lines = route.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
            lines.any(|line| line.len() > 1 && line[0] == nic.name && line[1] == "00000000")
        };
        nics.sort_by_key(|nic| (!is_default(nic), !nic.up, nic.driver == "lo", nic.name.clone()));
        let of_system = sys.join("devices/system");
        let siblings = siblings(&of_system.join("cpu"), &cores);
        Self { nodes: nodes(&of_system.join("node")), cores, siblings, nics, kernel: String::new() }
    }
}

impl Machine {
    /// Whether a processor is of another NUMA node than the first interface.
    pub(super) fn is_far(&self, core: usize) -> bool {
        let node = self.nics.first().and_then(|nic| nic.numa_node);
        let node = node.and_then(|node| self.nodes.iter().find(|(n, _)| *n == node));
        node.is_some_and(|(_, cores)| !cores.contains(&core))
    }

    /// Whether interrupts of the first interface come to a processor.
    pub(super) fn takes_interrupts(&self, core: usize) -> bool {
        self.nics.first().is_some_and(|nic| nic.irq_cores.contains(&core))
    }

    /// The other threads of the core that a processor is one of.
    pub(super) fn siblings_of(&self, core: usize) -> impl Iterator<Item = usize> + '_ {
        let of_core = self.siblings.iter().find(|threads| threads.contains(&core));
        of_core.into_iter().flatten().copied().filter(move |other| *other != core)
    }

    /// Whether interrupts of the first interface come to another thread of the same core.
    pub(super) fn is_beside_interrupts(&self, core: usize) -> bool {
        self.siblings_of(core).any(|other| self.takes_interrupts(other))
    }

    /// The processors, best ones first. Those of the first interface's NUMA node come before others;
    /// of these, those that its interrupts come to come last, and before them the other threads of
    /// their cores; of the rest, one thread of each core comes before second ones. The order of the
    /// system otherwise.
    pub fn near(&self) -> Vec<usize> {
        let class = |core: usize| {
            (self.is_far(core), self.takes_interrupts(core), self.is_beside_interrupts(core))
        };
        let mut cores = self.cores.clone();
        cores.sort_by_cached_key(|core| class(*core));
        let place: HashMap<usize, usize> = cores.iter().copied().zip(0..).collect();
        let used_before = |core: usize| {
            let is_before = |other: &usize| place.get(other).is_some_and(|at| *at < place[&core]);
            self.siblings_of(core).filter(is_before).count()
        };
        cores.sort_by_cached_key(|core| (class(*core), used_before(*core)));
        cores
    }
}

/// The threads of each core that has several, from a folder like `/sys/devices/system/cpu`.
fn siblings(folder: &Path, cores: &[usize]) -> Vec<Vec<usize>> {
    let mut found: Vec<Vec<usize>> = Vec::new();
    for core in cores {
        if found.iter().any(|threads| threads.contains(core)) {
            continue;
        }
        let at = folder.join(format!("cpu{core}/topology/thread_siblings_list"));
        let threads = list(&fs::read_to_string(at).unwrap_or_default());
        if threads.len() > 1 && threads.contains(core) {
            found.push(threads);
        }
    }
    found
}

/// Processors of the NUMA nodes, from a folder like `/sys/devices/system/node`.
fn nodes(folder: &Path) -> Vec<(u32, Vec<usize>)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let node = |entry: fs::DirEntry| {
        let number = entry.file_name().to_str()?.strip_prefix("node")?.parse().ok()?;
        Some((number, list(&fs::read_to_string(entry.path().join("cpulist")).ok()?)))
    };
    let mut nodes: Vec<_> = entries.filter_map(node).collect();
    nodes.sort();
    nodes
}

/// More processors than any machine has.
const MOST_CORES: usize = 1 << 16;

/// The numbers of a list such as `0-3,8`; what is none is left out.
fn list(text: &str) -> Vec<usize> {
    let ranges = text.trim().split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        (last < MOST_CORES).then_some(first..=last)
    });
    ranges.flatten().collect()
}

/// The one processor that an interrupt comes to; `None` where there are several, or it is not told.
fn core_of(irq: u32, proc: &Path) -> Option<usize> {
    let folder = proc.join("irq").join(irq.to_string());
    // What it may come to is often every processor; where it does come to is told beside it.
    let lists = ["effective_affinity_list", "smp_affinity_list"];
    let mut lists = lists.map(|file| fs::read_to_string(folder.join(file))).into_iter().flatten();
    match list(&lists.find(|text| !text.trim().is_empty())?)[..] {
        [core] => Some(core),
        _ => None,
    }
}

impl Nic {
    fn read(at: &Path, proc: &Path, name: String, asked: &dyn Fn(&str) -> Option<String>) -> Self {
        let text = |file: &str| fs::read_to_string(at.join(file)).unwrap_or_default();
        let driver = fs::canonicalize(at.join("device/driver")).ok();
        let driver = driver.and_then(|path| Some(path.file_name()?.to_str()?.to_owned()));
        let driver = driver.unwrap_or_else(|| {
            let kind = text("uevent");
            let kind = kind.lines().find_map(|line| line.strip_prefix("DEVTYPE="));
            if text("type").trim() == "772" {
                return "lo".to_owned();
            }
            let kind = kind.map(str::to_owned).or_else(|| asked(&name));
            kind.filter(|kind| !kind.is_empty()).unwrap_or_else(|| UNKNOWN.to_owned())
        });
        let names = |folder: &str| -> Vec<String> {
            let entries = fs::read_dir(at.join(folder)).into_iter().flatten().flatten();
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
        };
        let queues = names("queues");
        let count = |kind: &str| queues.iter().filter(|name| name.starts_with(kind)).count();
        let mut irqs: Vec<u32> =
            names("device/msi_irqs").iter().filter_map(|name| name.parse().ok()).collect();
        irqs.sort_unstable();
        let mut irq_cores: Vec<usize> = irqs.iter().filter_map(|irq| core_of(*irq, proc)).collect();
        irq_cores.sort_unstable();
        irq_cores.dedup();
        let state = text("operstate");
        Self {
            name,
            driver,
            is_virtual: !at.join("device").exists(),
            up: matches!(state.trim(), "up" | "unknown"),
            rx_queues: count("rx-"),
            tx_queues: count("tx-"),
            // The kernel says -1 where there is one node only.
            numa_node: text("device/numa_node").trim().parse().ok(),
            irqs,
            irq_cores,
            index: text("ifindex").trim().parse().unwrap_or(0),
        }
    }
}
