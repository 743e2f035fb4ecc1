//! What the user typed as an address: host and port, and the socket addresses behind them.

use crate::exit::Failure;
use std::net::{Ipv6Addr, SocketAddr, ToSocketAddrs as _};

/// What a receiver begins with that is looked for on the local network.
pub const DISCOVER: &str = "discover:";
/// Most addresses of one name that are tried at once.
const MAX_ADDRESSES: usize = 16;

/// A peer's address as typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Host name or IP address, lower case, without brackets.
    pub host: String,
    /// UDP port.
    pub port: u16,
}

impl Target {
    /// HOST, HOST:PORT, IPV4, IPV4:PORT, IPV6, [IPV6] or [IPV6]:PORT.
    pub fn parse(text: &str, default_port: u16) -> Result<Self, Failure> {
        let bad = |why: &str| Failure::usage(format!("`{text}` is not an address: {why}"));
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, rest) = rest.split_once(']').ok_or_else(|| bad("`]` is missing"))?;
            host.split('%')
                .next()
                .unwrap_or(host)
                .parse::<Ipv6Addr>()
                .map_err(|_| bad("what stands in brackets is no IPv6 address"))?;
            match rest {
                "" => (host, None),
                _ => (host, Some(rest.strip_prefix(':').ok_or_else(|| bad("`:` is missing"))?)),
            }
        } else if text.parse::<Ipv6Addr>().is_ok() {
            (text, None)
        } else {
            match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            }
        };
        if host.is_empty() {
            return Err(bad("the host is missing"));
        }
        let port = match port {
            None => default_port,
            Some(digits) => match digits.parse() {
                Ok(0) | Err(_) => return Err(bad("the port must lie between 1 and 65535")),
                Ok(port) => port,
            },
        };
        Ok(Self { host: host.to_ascii_lowercase(), port })
    }

    /// `host:port` as the known-peers file has it, or `discover:name`.
    pub fn key(&self) -> String {
        if self.host.starts_with(DISCOVER) {
            self.host.clone()
        } else if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// All addresses, in the system's order of preference, without repetitions.
    pub fn resolve(&self) -> Result<Vec<SocketAddr>, Failure> {
        let found = (self.host.as_str(), self.port)
            .to_socket_addrs()
            .map_err(|e| Failure::connection(format!("cannot resolve {}: {e}", self.host)))?;
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for address in found {
            if !addresses.contains(&address) && addresses.len() < MAX_ADDRESSES {
                addresses.push(address);
            }
        }
        if addresses.is_empty() {
            return Err(Failure::connection(format!("{} has no address", self.host)));
        }
        Ok(addresses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<(String, u16)> {
        Target::parse(text, 7470).ok().map(|t| (t.host, t.port))
    }

    #[test]
    fn forms() {
        let is = |text, host: &str, port| assert_eq!(parse(text), Some((host.to_owned(), port)));
        is("Example.org", "example.org", 7470);
        is("example.org:80", "example.org", 80);
        is("127.0.0.1:1", "127.0.0.1", 1);
        is("::1", "::1", 7470);
        is("[::1]", "::1", 7470);
        is("[::1]:9", "::1", 9);
        is("[fe80::1%eth0]:9", "fe80::1%eth0", 9);
        for bad in ["", ":80", "host:", "host:0", "host:65536", "[::1", "[::1]9", "[host]:1"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn keys_are_unambiguous() {
        assert_eq!(Target::parse("::1", 7470).unwrap().key(), "[::1]:7470");
        assert_eq!(Target::parse("A:1", 7470).unwrap().key(), "a:1");
        let found = Target { host: "discover:study".into(), port: 1 };
        assert_eq!(found.key(), "discover:study");
    }

    #[test]
    fn literal_addresses_resolve_to_themselves() {
        let target = Target::parse("127.0.0.1:5", 7470).unwrap();
        assert_eq!(target.resolve().unwrap(), ["127.0.0.1:5".parse().unwrap()]);
    }
}
