//! What this machine has: its processors, its kernel, its network interfaces.

use std::fs;
use std::path::Path;

/// A network interface of this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nic {
    /// Its name.
    pub name: String,
    /// Its driver, as the kernel calls it; `lo` and `veth` for those without a device.
    pub driver: String,
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
    /// Number by which the kernel knows it; another one means another interface, whatever its name.
    pub index: u32,
}

/// What a profile is fitted to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Processors that the process may use.
    pub cores: Vec<usize>,
    /// Network interfaces, those with the default route first.
    pub nics: Vec<Nic>,
    /// The kernel's release, such as `6.12.3`; empty where it cannot be told.
    pub kernel: String,
}

impl Machine {
    /// This one. Where there is no `/sys`, it has no interfaces.
    pub fn this() -> Self {
        let route = fs::read_to_string("/proc/net/route").unwrap_or_default();
        let kernel = crate::sys::kernel_release();
        Self { kernel, ..Self::read(Path::new("/sys"), &route, super::cores()) }
    }

    /// From a tree like `/sys`, a text like `/proc/net/route`, and processors.
    pub fn read(sys: &Path, route: &str, cores: Vec<usize>) -> Self {
        let net = sys.join("class/net");
        let names = fs::read_dir(&net).into_iter().flatten().flatten();
        let mut nics: Vec<Nic> = names
            .filter_map(|entry| entry.file_name().into_string().ok())
            .map(|name| Nic::read(&net.join(&name), name))
            .collect();
        let is_default = |nic: &Nic| {
            let mut lines = route.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
            lines.any(|line| line.len() > 1 && line[0] == nic.name && line[1] == "00000000")
        };
        nics.sort_by_key(|nic| (!is_default(nic), !nic.up, nic.driver == "lo", nic.name.clone()));
        Self { cores, nics, kernel: String::new() }
    }
}

impl Nic {
    fn read(at: &Path, name: String) -> Self {
        let text = |file: &str| fs::read_to_string(at.join(file)).unwrap_or_default();
        let driver = fs::canonicalize(at.join("device/driver")).ok();
        let driver = driver.and_then(|path| Some(path.file_name()?.to_str()?.to_owned()));
        let kind = text("uevent");
        let kind = kind.lines().find_map(|line| line.strip_prefix("DEVTYPE="));
        let is_loopback = text("type").trim() == "772";
        let virtual_kind = if is_loopback { "lo" } else { kind.unwrap_or("veth") };
        let names = |folder: &str| -> Vec<String> {
            let entries = fs::read_dir(at.join(folder)).into_iter().flatten().flatten();
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
        };
        let queues = names("queues");
        let count = |kind: &str| queues.iter().filter(|name| name.starts_with(kind)).count();
        let mut irqs: Vec<u32> =
            names("device/msi_irqs").iter().filter_map(|name| name.parse().ok()).collect();
        irqs.sort_unstable();
        let state = text("operstate");
        Self {
            name,
            driver: driver.unwrap_or_else(|| virtual_kind.to_owned()),
            up: matches!(state.trim(), "up" | "unknown"),
            rx_queues: count("rx-"),
            tx_queues: count("tx-"),
            // The kernel says -1 where there is one node only.
            numa_node: text("device/numa_node").trim().parse().ok(),
            irqs,
            index: text("ifindex").trim().parse().unwrap_or(0),
        }
    }
}
