//! The interfaces of this machine and their addresses.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// Addresses that are looked at; a machine with more has them for something else.
const MAX_ADDRESSES: usize = 256;

/// Which interfaces take part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interfaces {
    /// By name; empty = all that are up.
    pub names: Vec<String>,
    /// The loopback interface too, so that programs of this machine find each other without any
    /// network. Not looked at for interfaces that are named.
    pub loopback: bool,
    /// Over IPv4.
    pub ipv4: bool,
    /// Over IPv6.
    pub ipv6: bool,
    /// How often interfaces are looked for that have come or gone; at least 100 ms.
    pub rescan: Duration,
}

impl Default for Interfaces {
    fn default() -> Self {
        Self {
            names: Vec::new(),
            loopback: true,
            ipv4: true,
            ipv6: true,
            rescan: Duration::from_secs(5),
        }
    }
}

/// One address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Local {
    pub name: String,
    pub index: u32,
    pub ip: IpAddr,
    prefix: u8,
    /// There is one neighbour, whatever its address.
    point_to_point: bool,
}

impl Local {
    /// All addresses of a family, on no interface in particular.
    pub(super) fn any(ip: IpAddr) -> Self {
        Self { name: "any interface".into(), index: 0, ip, prefix: 0, point_to_point: false }
    }

    pub(super) const fn is_link_local(&self) -> bool {
        match self.ip {
            IpAddr::V4(v4) => v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        }
    }

    /// Whether an address belongs to the network of this one.
    pub(super) fn covers(&self, other: IpAddr) -> bool {
        match (self.ip, other) {
            (IpAddr::V4(ours), IpAddr::V4(other)) => {
                self.point_to_point || same_network_v4(ours, other, self.prefix)
            }
            (IpAddr::V6(ours), IpAddr::V6(other)) => {
                self.point_to_point
                    || other.is_unicast_link_local()
                    || same_network_v6(ours, other, self.prefix)
            }
            _ => false,
        }
    }
}

fn same_network_v4(a: Ipv4Addr, b: Ipv4Addr, prefix: u8) -> bool {
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
    (a.to_bits() ^ b.to_bits()) & mask == 0
}

fn same_network_v6(a: Ipv6Addr, b: Ipv6Addr, prefix: u8) -> bool {
    let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
    (a.to_bits() ^ b.to_bits()) & mask == 0
}

impl Interfaces {
    /// The addresses that take part now.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn scan(&self) -> io::Result<Vec<Local>> {
        let mut found = Vec::new();
        for interface in if_addrs::get_if_addrs()? {
            let up = matches!(
                interface.oper_status,
                if_addrs::IfOperStatus::Up | if_addrs::IfOperStatus::Unknown
            );
            let (ip, prefix) = match &interface.addr {
                if_addrs::IfAddr::V4(v4) => (IpAddr::V4(v4.ip), v4.prefixlen),
                if_addrs::IfAddr::V6(v6) => (IpAddr::V6(v6.ip), v6.prefixlen),
            };
            let local = Local {
                point_to_point: interface.is_p2p(),
                index: interface.index.unwrap_or(0),
                name: interface.name,
                ip,
                prefix,
            };
            if up && self.takes(&local) && found.len() < MAX_ADDRESSES {
                found.push(local);
            }
        }
        Ok(found)
    }

    fn takes(&self, local: &Local) -> bool {
        let family = if local.ip.is_ipv4() { self.ipv4 } else { self.ipv6 };
        let named = if self.names.is_empty() {
            self.loopback || !local.ip.is_loopback()
        } else {
            self.names.contains(&local.name)
        };
        family && named && !local.ip.is_unspecified()
    }
}

#[cfg(test)]
pub(super) fn local(name: &str, index: u32, ip: &str, prefix: u8) -> Local {
    Local { name: name.into(), index, ip: ip.parse().unwrap(), prefix, point_to_point: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        let covers = |ip: &str, prefix, other: &str| {
            local("eth0", 2, ip, prefix).covers(other.parse().unwrap())
        };
        assert!(covers("10.1.2.3", 24, "10.1.2.200") && !covers("10.1.2.3", 24, "10.1.3.3"));
        assert!(covers("10.1.2.3", 0, "192.0.2.1") && !covers("10.1.2.3", 32, "10.1.2.2"));
        assert!(covers("127.0.0.1", 8, "127.9.9.9"));
        assert!(covers("2001:db8::1", 64, "2001:db8::2"));
        assert!(!covers("2001:db8::1", 64, "2001:db8:0:1::2"));
        assert!(covers("2001:db8::1", 64, "fe80::9"), "the socket belongs to the interface");
        assert!(covers("::1", 128, "::1") && !covers("::1", 128, "::2"));
        assert!(!covers("10.1.2.3", 0, "::1"));
        let tunnel = Local { point_to_point: true, ..local("tun0", 3, "10.9.0.1", 32) };
        assert!(tunnel.covers("10.9.0.2".parse().unwrap()));
    }

    #[test]
    fn choices() {
        let eth = local("eth0", 2, "10.1.2.3", 24);
        let lo = local("lo", 1, "127.0.0.1", 8);
        let six = local("eth0", 2, "fe80::1", 64);
        let all = Interfaces::default();
        assert!(all.takes(&eth) && all.takes(&lo) && all.takes(&six));
        let four = Interfaces { ipv6: false, loopback: false, ..Interfaces::default() };
        assert!(four.takes(&eth) && !four.takes(&lo) && !four.takes(&six));
        let named =
            Interfaces { names: vec!["lo".into()], loopback: false, ..Interfaces::default() };
        assert!(named.takes(&lo) && !named.takes(&eth));
    }

    #[test]
    fn this_machine_has_a_loopback_interface() {
        let found = Interfaces::default().scan().unwrap();
        assert!(found.iter().any(|l| l.ip.is_loopback()), "{found:?}");
        let none = Interfaces { names: vec!["no such".into()], ..Interfaces::default() };
        assert_eq!(none.scan().unwrap(), []);
    }
}
