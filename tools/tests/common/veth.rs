//! Two network namespaces joined by a veth pair.

use super::netns::{inside, ip};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Addresses of the two ends.
pub const ADDRESSES: [&str; 2] = ["10.231.7.1", "10.231.7.2"];

/// IPv6 addresses of the two ends, once [`Veth::with_ipv6`] has set them.
pub const ADDRESSES_V6: [&str; 2] = ["fd47:5452::1", "fd47:5452::2"];

/// The namespaces, removed when dropped.
pub struct Veth {
    names: [String; 2],
}

impl Veth {
    /// `Err` with the reason where namespaces cannot be made.
    pub fn new(mtu: u32) -> Result<Self, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = |end: char| format!("tl{}-{n}{end}", std::process::id());
        let names = [name('a'), name('b')];
        ip(&format!("netns add {}", names[0]))
            .map_err(|e| format!("needs root and iproute2 to make network namespaces: {e}"))?;
        let veth = Self { names };
        let [a, b] = &veth.names;
        ip(&format!("netns add {b}"))?;
        ip(&format!("link add eth netns {a} type veth peer name eth netns {b}"))
            .map_err(|e| format!("this kernel has no veth: {e}"))?;
        for (name, address) in veth.names.iter().zip(ADDRESSES) {
            ip(&format!("-n {name} addr add {address}/24 dev eth"))?;
            ip(&format!("-n {name} link set eth mtu {mtu} up"))?;
        }
        Ok(veth)
    }

    /// Adds the IPv6 addresses, usable at once.
    pub fn with_ipv6(&self) -> Result<(), String> {
        for (end, address) in ADDRESSES_V6.into_iter().enumerate() {
            self.ip(end, &format!("addr add {address}/64 dev eth nodad"))
                .map_err(|e| format!("this kernel has no IPv6: {e}"))?;
        }
        Ok(())
    }

    /// `ip` with `args` at one end.
    pub fn ip(&self, end: usize, args: &str) -> Result<(), String> {
        ip(&format!("-n {} {args}", self.names[end]))
    }

    /// `command`, to be run at one end: 0 or 1.
    pub fn at(&self, end: usize, command: &Command) -> Command {
        inside(&self.names[end], command)
    }
}

impl Drop for Veth {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = ip(&format!("netns del {name}"));
        }
    }
}
