//! Two private networks, each behind a NAT, and a network between them: five network namespaces.
//! The NATs are the kernel's (nftables), or programs (`nat.py`) where it has none.
//!
//! ```text
//! a 10.231.11.2 ── NAT 203.0.113.2 ── w 203.0.113.1, 198.51.100.1 ── NAT 203.0.113.6 ── b 10.231.12.2
//! ```

use super::netns::{inside, ip, succeed};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
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

/// Addresses of the hosts, of both sides of the NATs and of the network between, on the links of each
/// side. They are told to those that need them, as programs do not answer for addresses.
const HARDWARE: [[&str; 4]; 2] = [
    ["02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:03", "02:00:00:00:00:04"],
    ["02:00:00:00:01:01", "02:00:00:00:01:02", "02:00:00:00:01:03", "02:00:00:00:01:04"],
];
/// The program that translates in place of the kernel.
const TRANSLATOR: &str = include_str!("nat.py");
/// Has a device leave checksums and segments to nobody.
const PLAIN: &str = "\
import array, fcntl, socket, struct, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for command in (0x17, 0x1f, 0x24): # checksums sent, TCP segments, any segments
    value = array.array('I', [command, 0])
    fcntl.ioctl(s, 0x8946, struct.pack('16sP', sys.argv[1].encode(), value.buffer_info()[0]))
";

/// Who translates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Translator {
    /// nftables.
    Kernel,
    /// A program on packet sockets.
    Program,
}

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

impl Nat {
    const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Cone => "cone",
            Self::Symmetric => "symmetric",
            Self::NoUdp => "noudp",
        }
    }
}

/// The namespaces, removed when dropped.
pub struct Lab {
    hosts: [String; 2],
    nats: [String; 2],
    world: String,
    translator: Translator,
    programs: Mutex<[Option<Child>; 2]>,
}

impl Lab {
    /// With NATs of the kernel if it has some. `Err` with the reason where this cannot be built.
    pub fn new(kinds: [Nat; 2]) -> Result<Self, String> {
        match Self::with(kinds, Translator::Kernel) {
            Err(why) if why.starts_with("nft") => Self::with(kinds, Translator::Program),
            result => result,
        }
    }

    /// With NATs of this make.
    pub fn with(kinds: [Nat; 2], translator: Translator) -> Result<Self, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = |what: &str| format!("tn{}-{n}{what}", std::process::id());
        let hosts = [name("a"), name("b")];
        let nats = [name("na"), name("nb")];
        let (world, programs) = (name("w"), Mutex::default());
        let lab = Self { hosts, nats, world, translator, programs };
        ip(&format!("netns add {}", lab.world))
            .map_err(|e| format!("needs root and iproute2 to make network namespaces: {e}"))?;
        if translator == Translator::Kernel {
            let probe = "table ip probe {\n chain c {\n type nat hook postrouting priority \
                         srcnat;\n masquerade fully-random\n }\n}\n";
            nft(&lab.world, probe)?;
            nft(&lab.world, "delete table ip probe\n")?;
        }
        ip(&format!("-n {} addr add {PUBLIC}/32 dev lo", lab.world))?;
        ip(&format!("-n {} link set lo up", lab.world))?;
        forward(&lab.world, "ipv4/ip_forward")?;
        for (side, kind) in kinds.into_iter().enumerate() {
            ip(&format!("netns add {}", lab.hosts[side]))?;
            ip(&format!("-n {} link set lo up", lab.hosts[side]))?;
            lab.plug(side, kind)?;
        }
        Ok(lab)
    }

    /// Puts another NAT in the place of a side's: what the old one knew is gone.
    pub fn replace(&self, side: usize, kind: Nat) -> Result<(), String> {
        self.stop(side);
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
        let (up, hardware) = (format!("up{side}"), HARDWARE[side]);
        for (one, at, other, there, mac, peer) in [
            ("eth", host, "lan", nat, hardware[0], hardware[1]),
            ("wan", nat, up.as_str(), world, hardware[2], hardware[3]),
        ] {
            ip(&format!(
                "link add {one} netns {at} address {mac} type veth peer name {other} netns {there} \
                 address {peer}"
            ))?;
            ip(&format!("-n {at} link set {one} up"))?;
            ip(&format!("-n {there} link set {other} up"))?;
        }
        ip(&format!("-n {host} addr add {}/24 dev eth", PRIVATE[side]))?;
        ip(&format!("-n {world} addr add {}/30 dev {up}", UPLINK[side]))?;
        ip(&format!("-n {host} route add default via {}", GATEWAY[side]))?;
        match self.translator {
            Translator::Kernel => self.translate(side, kind),
            Translator::Program => self.run(side, kind),
        }
    }

    /// The program between the two devices of a side.
    fn run(&self, side: usize, kind: Nat) -> Result<(), String> {
        let (host, world, hardware) = (&self.hosts[side], &self.world, HARDWARE[side]);
        let up = format!("up{side}");
        for (space, device, neighbour, mac) in [
            (host, "eth", GATEWAY[side], hardware[1]),
            (world, up.as_str(), OUTSIDE[side], hardware[2]),
        ] {
            ip(&format!(
                "-n {space} neigh replace {neighbour} lladdr {mac} dev {device} nud permanent"
            ))?;
            let mut plain = Command::new("python3");
            plain.args(["-c", PLAIN, device]);
            succeed(&mut inside(space, &plain), "offloads of a device")?;
        }
        let mut python = Command::new("python3");
        python.args(["-c", TRANSLATOR, PRIVATE[side], OUTSIDE[side], kind.name()]);
        python.args([hardware[0], hardware[3]]);
        let mut program = inside(&self.nats[side], &python);
        let spawned = program.stdout(Stdio::piped()).spawn();
        let mut child = spawned.map_err(|e| format!("the translator: {e}"))?;
        let mut line = String::new();
        if let Some(out) = child.stdout.take() {
            let _ = BufReader::new(out).read_line(&mut line);
        }
        self.programs.lock().unwrap()[side] = Some(child);
        if line == "ready\n" { Ok(()) } else { Err("the translator does not start".to_owned()) }
    }

    fn stop(&self, side: usize) {
        if let Some(mut program) = self.programs.lock().unwrap()[side].take() {
            let _ = program.kill();
            let _ = program.wait();
        }
    }

    /// The kernel between the two devices of a side.
    fn translate(&self, side: usize, kind: Nat) -> Result<(), String> {
        let nat = &self.nats[side];
        ip(&format!("-n {nat} addr add {}/24 dev lan", GATEWAY[side]))?;
        ip(&format!("-n {nat} addr add {}/30 dev wan", OUTSIDE[side]))?;
        ip(&format!("-n {nat} route add default via {}", UPLINK[side]))?;
        forward(nat, "ipv4/ip_forward")?;
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

    /// Joins all of it by IPv6 too, without NATs: routers pass on whatever there is.
    pub fn add_ipv6(&self) -> Result<(), String> {
        forward(&self.world, "ipv6/conf/all/forwarding")?;
        for side in [0, 1] {
            let (host, nat, world) = (&self.hosts[side], &self.nats[side], &self.world);
            forward(nat, "ipv6/conf/all/forwarding")?;
            let (inner, outer) = (format!("2001:db8:1{side}"), format!("2001:db8:2{side}"));
            for (space, device, address) in [
                (host, "eth", format!("{inner}::2/64")),
                (nat, "lan", format!("{inner}::1/64")),
                (nat, "wan", format!("{outer}::2/64")),
                (world, &format!("up{side}"), format!("{outer}::1/64")),
            ] {
                ip(&format!("-n {space} addr add {address} dev {device} nodad"))?;
            }
            ip(&format!("-n {host} route add default via {inner}::1"))?;
            ip(&format!("-n {nat} route add default via {outer}::1"))?;
            ip(&format!("-n {world} route add {inner}::/64 via {outer}::2"))?;
        }
        Ok(())
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
        self.stop(0);
        self.stop(1);
        for name in self.hosts.iter().chain(&self.nats).chain([&self.world]) {
            let _ = ip(&format!("netns del {name}"));
        }
    }
}

fn forward(space: &str, setting: &str) -> Result<(), String> {
    let mut write = Command::new("sh");
    write.args(["-c", &format!("echo 1 > /proc/sys/net/{setting}")]);
    succeed(&mut inside(space, &write), setting)
}

fn nft(space: &str, rules: &str) -> Result<(), String> {
    let mut command = inside(space, Command::new("nft").args(["-f", "-"]));
    let spawned = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.map_err(|e| format!("nft: {e}"))?;
    if let Some(mut to) = child.stdin.take() {
        let _ = to.write_all(rules.as_bytes());
    }
    let output = child.wait_with_output().map_err(|e| format!("nft: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("nft: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
