//! Network namespaces with a TUN device in each.

use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::thread;
use tun_rs::{DeviceBuilder, SyncDevice};

/// Name of the device in both namespaces.
const DEVICE: &str = "link0";
/// Bits of the network that both addresses are in.
const PREFIX: u8 = 24;
/// Packets that wait for this program at most. What waits longer is counted.
const DEVICE_QUEUE: u32 = 10_000;

/// A namespace that this program has made. It is removed when this is dropped.
pub struct Namespace {
    name: String,
}

/// Runs `ip` and gives back what it printed.
fn ip(args: &[&str]) -> Result<String, String> {
    let failed = |why: &str| format!("ip {}: {}", args.join(" "), why.trim());
    let output = Command::new("ip")
        .args(args)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| failed(&e.to_string()))?;
    if !output.status.success() {
        return Err(failed(&String::from_utf8_lossy(&output.stderr)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

impl Namespace {
    /// # Errors
    /// There is one of that name, or this is not for us to do.
    pub fn make(name: &str) -> Result<Self, String> {
        ip(&["netns", "add", name])?;
        let this = Self { name: name.to_owned() };
        ip(&["-n", name, "link", "set", "lo", "up"])?;
        Ok(this)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A TUN device in it, with an address. Nothing is offloaded to it: what is read are packets
    /// of at most `mtu` bytes with all checksums.
    ///
    /// # Errors
    /// There is no /dev/net/tun, or this is not for us to do.
    pub fn device(&self, address: Ipv4Addr, mtu: u16) -> Result<SyncDevice, String> {
        let file = File::open(format!("/run/netns/{}", self.name))
            .map_err(|e| format!("namespace {}: {e}", self.name))?;
        // A namespace is entered by a thread, and what it opens stays there.
        let open = move || {
            setns(file, CloneFlags::CLONE_NEWNET)?;
            let device = DeviceBuilder::new()
                .name(DEVICE)
                .mtu(mtu)
                .tx_queue_len(DEVICE_QUEUE)
                .offload(false)
                .enable(false)
                .build_sync()?;
            device.set_nonblocking(true)?;
            Ok(device)
        };
        let opened: Result<SyncDevice, std::io::Error> =
            thread::spawn(open).join().map_err(|_| "the thread that opens devices panicked")?;
        let device = opened.map_err(|e| format!("TUN device in {}: {e}", self.name))?;
        let address = format!("{address}/{PREFIX}");
        // No address of IPv6 of its own accord, so that there are no packets but those of users.
        ip(&["-n", &self.name, "link", "set", DEVICE, "addrgenmode", "none"])?;
        ip(&["-n", &self.name, "addr", "add", &address, "dev", DEVICE])?;
        ip(&["-n", &self.name, "link", "set", DEVICE, "up"])?;
        Ok(device)
    }

    /// Packets that its device dropped because this program did not fetch them.
    ///
    /// # Errors
    /// The system does not say.
    pub fn device_drops(&self) -> Result<u64, String> {
        let text = ip(&["-n", &self.name, "-s", "-j", "link", "show", "dev", DEVICE])?;
        let links: serde_json::Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
        links[0]["stats64"]["tx"]["dropped"].as_u64().ok_or_else(|| "ip does not say".to_owned())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(why) = ip(&["netns", "del", &self.name]) {
            eprintln!("link-emulator: {why}");
        }
    }
}
