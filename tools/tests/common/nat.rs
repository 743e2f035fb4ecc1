//! Two private networks, each behind a NAT of the kernel (nftables), and a network between them:
//! five network namespaces.
//!
//! ```text
//! a 10.231.11.2 ── NAT 203.0.113.2 ── w 203.0.113.1, 198.51.100.1 ── NAT 203.0.113.6 ── b 10.231.12.2
//! ```

use super::netns::{inside, ip, succeed};
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Where an event source listens: the network between.
pub const PUBLIC: &str = "198.51.100.1";
/// A second address there.
pub const PUBLIC_TOO: &str = "203.0.113.1";
/// Addresses of the two sides, behind their NATs.
pub const PRIVATE: [&str; 2] = ["10.231.11.2", "10.231.12.2"];
/// Under which the two sides are seen outside.
pub const OUTSIDE: [&str; 2] = ["203.0.113.2", "203.0.113.6"];

const GATEWAY: [&str; 2] = ["10.231.11.1", "10.231.12.1"];
const UPLINK: [&str; 2] = ["203.0.113.1", "203.0.113.5"];

/// How a NAT maps and filters (RFC 4787 §4.1, §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nat {
    /// As [`Cone`](Self::Cone), and lets in everything.
    Open,
    /// One port outside for one port inside, whoever it talks to. Lets in only what answers.
    Cone,
    /// Another port for everybody it talks to. Lets in only what answers.
    Symmetric,
    /// As [`Cone`](Self::Cone), and drops UDP, as some networks of companies do.
    NoUdp,
}

/// The namespaces, removed when dropped.
pub struct Lab {
    hosts: [String; 2],
    nats: [String; 2],
    world: String,
}

impl Lab {
    /// `Err` with the reason where this cannot be built.
    pub fn new(kinds: [Nat; 2]) -> Result<Self, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = |what: &str| format!("tn{}-{n}{what}", std::process::id());
        let hosts = [name("a"), name("b")];
        let nats = [name("na"), name("nb")];
        let lab = Self { hosts, nats, world: name("w") };
        ip(&format!("netns add {}", lab.world))
            .map_err(|e| format!("needs root and iproute2 to make network namespaces: {e}"))?;
        let probe = "table ip probe {\n chain c {\n type nat hook postrouting priority srcnat;\n \
                     masquerade fully-random\n }\n}\n";
        nft(&lab.world, probe)
            .map_err(|e| format!("needs nftables, and a kernel with masquerading: {e}"))?;
        nft(&lab.world, "delete table ip probe\n")?;
        ip(&format!("-n {} addr add {PUBLIC}/32 dev lo", lab.world))?;
        ip(&format!("-n {} link set lo up", lab.world))?;
        forward(&lab.world)?;
        for (side, kind) in kinds.into_iter().enumerate() {
            ip(&format!("netns add {}", lab.hosts[side]))?;
            ip(&format!("-n {} link set lo up", lab.hosts[side]))?;
            lab.plug(side, kind)?;
        }
        Ok(lab)
    }

    /// Puts another NAT in the place of a side's: what the old one knew is gone.
    pub fn replace(&self, side: usize, kind: Nat) -> Result<(), String> {
        // With the namespace go its ends of the links, and with them the other ends.
        ip(&format!("netns del {}", self.nats[side]))?;
        // That happens a little later.
        for _ in 0..200 {
            if self.ip(side, "link show eth").is_err() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        self.plug(side, kind)
    }

    fn plug(&self, side: usize, kind: Nat) -> Result<(), String> {
        let (host, nat, world) = (&self.hosts[side], &self.nats[side], &self.world);
        ip(&format!("netns add {nat}"))?;
        ip(&format!("link add eth netns {host} type veth peer name lan netns {nat}"))?;
        ip(&format!("link add wan netns {nat} type veth peer name up{side} netns {world}"))?;
        for (space, device, address) in [
            (host, "eth", format!("{}/24", PRIVATE[side])),
            (nat, "lan", format!("{}/24", GATEWAY[side])),
            (nat, "wan", format!("{}/30", OUTSIDE[side])),
            (world, &format!("up{side}"), format!("{}/30", UPLINK[side])),
        ] {
            ip(&format!("-n {space} addr add {address} dev {device}"))?;
            ip(&format!("-n {space} link set {device} up"))?;
        }
        ip(&format!("-n {host} route add default via {}", GATEWAY[side]))?;
        ip(&format!("-n {nat} route add default via {}", UPLINK[side]))?;
        forward(nat)?;
        let (how, open) = match kind {
            Nat::Open => {
                ("", format!("iifname \"wan\" meta l4proto udp dnat to {}", PRIVATE[side]))
            }
            Nat::Cone | Nat::NoUdp => ("", String::new()),
            Nat::Symmetric => (" fully-random", String::new()),
        };
        let barred = if kind == Nat::NoUdp { "meta l4proto udp drop" } else { "" };
        // What comes unasked is dropped before it is tracked to its end, as NATs at home do:
        // otherwise it would take the port that the answer to it needs.
        let rules = format!(
            "table ip nat {{\n\
             chain post {{\n type nat hook postrouting priority srcnat;\n\
             oifname \"wan\" masquerade{how}\n }}\n\
             chain pre {{\n type nat hook prerouting priority dstnat;\n{open}\n }}\n}}\n\
             table ip guard {{\n\
             chain input {{\n type filter hook input priority filter;\n\
             iifname \"wan\" drop\n }}\n\
             chain forward {{\n type filter hook forward priority filter;\n{barred}\n }}\n}}\n"
        );
        nft(nat, &rules)
    }

    /// `ip` with `args` at one side.
    pub fn ip(&self, side: usize, args: &str) -> Result<(), String> {
        ip(&format!("-n {} {args}", self.hosts[side]))
    }

    /// `command`, to be run at one side: 0 or 1.
    pub fn at(&self, side: usize, command: &Command) -> Command {
        inside(&self.hosts[side], command)
    }

    /// `command`, to be run in the network between.
    pub fn between(&self, command: &Command) -> Command {
        inside(&self.world, command)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in self.hosts.iter().chain(&self.nats).chain([&self.world]) {
            let _ = ip(&format!("netns del {name}"));
        }
    }
}

fn forward(space: &str) -> Result<(), String> {
    let mut write = Command::new("sh");
    write.args(["-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]);
    succeed(&mut inside(space, &write), "ip_forward")
}

fn nft(space: &str, rules: &str) -> Result<(), String> {
    let mut command = inside(space, Command::new("nft").args(["-f", "-"]));
    let spawned = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.map_err(|e| format!("nft(8): {e}"))?;
    if let Some(mut to) = child.stdin.take() {
        let _ = to.write_all(rules.as_bytes());
    }
    let output = child.wait_with_output().map_err(|e| format!("nft(8): {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("nft: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
