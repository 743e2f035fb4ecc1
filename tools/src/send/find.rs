//! `trunkline send discover:NAME`: the receiver of that name on the local network.

use crate::address::{DISCOVER, Target};
use crate::discover;
use crate::exit::{Exit, Failure};
use crate::home;
use crate::peers::KnownPeers;
use crate::transfer::SERVICE;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use trunkline::PeerId;
use trunkline::discovery::{Device, DiscoveryConfig};
use trunkline::limits;

/// Longest look for it.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to look for others of the same name once one is found.
const OTHERS: Duration = Duration::from_millis(500);

/// Finds the receiver that `typed` names (what follows `discover:`; empty = the only one there is).
/// The second value is where it listens.
pub fn find(typed: &str, pins: &[PeerId]) -> Result<(Target, Vec<SocketAddr>), Failure> {
    if typed.len() > limits::MAX_PRESENCE_NAME {
        return Err(Failure::usage("the name after discover: is too long"));
    }
    let config = DiscoveryConfig::for_service(SERVICE);
    let mut discovery = discover::open(&config)?;
    let mut deadline = Instant::now() + PATIENCE;
    let mut found = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        discovery
            .poll(left)
            .map_err(|e| Failure::connection(format!("cannot look for {typed}: {e}")))?;
        if found.is_empty() {
            found = matching(discovery.devices(), typed, pins);
            if !found.is_empty() {
                deadline = deadline.min(Instant::now() + OTHERS);
            }
        }
        if left.is_zero() {
            break;
        }
    }
    let found = matching(discovery.devices(), typed, pins);
    let known = KnownPeers::load(home::known_peers_path()?)?;
    let device = choose(typed, found, |key| known.lookup(key))?;
    Ok((target(&device), device.addresses()))
}

/// What the known-peers file calls it: the name, not the address, which changes.
fn target(device: &Device) -> Target {
    let mut host = DISCOVER.to_owned();
    for byte in device.name.to_lowercase().bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_') {
            host.push(byte.into());
        } else {
            let _ = write!(host, "%{byte:02x}");
        }
    }
    Target { host, port: device.port() }
}

fn matching<'a>(
    devices: impl Iterator<Item = &'a Device>,
    typed: &str,
    pins: &[PeerId],
) -> Vec<Device> {
    let named = |d: &&Device| typed.is_empty() || d.name.to_lowercase() == typed.to_lowercase();
    let pinned = |d: &&Device| pins.is_empty() || pins.contains(&d.peer);
    devices.filter(named).filter(pinned).cloned().collect()
}

/// The one that is meant: the only one, or the only one that was accepted before.
fn choose(
    typed: &str,
    mut found: Vec<Device>,
    known: impl Fn(&str) -> Vec<PeerId>,
) -> Result<Device, Failure> {
    if found.len() > 1 {
        let accepted = |d: &&Device| known(&target(d).key()).contains(&d.peer);
        let accepted: Vec<Device> = found.iter().filter(accepted).cloned().collect();
        if accepted.len() == 1 {
            found = accepted;
        }
    }
    let what = if typed.is_empty() { "receiver" } else { "receiver of that name" };
    match &mut found[..] {
        [] => {
            Err(Failure::connection(format!("no {what} announces itself here (recv --announce)")))
        }
        [_] => Ok(found.remove(0)),
        several => {
            let list: Vec<String> = several
                .iter()
                .map(|d| {
                    let at = d.addresses().first().map(ToString::to_string).unwrap_or_default();
                    format!("\n  {} at {at}, fingerprint {}", d.name, d.peer)
                })
                .collect();
            let text = format!("more than one {what}; choose with --pin:{}", list.concat());
            Err(Failure::new(Exit::Trust, text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trunkline::discovery::{ClientState, DeviceType, Links, Mode, Path};
    use trunkline::{Duration as Span, Instant as Moment};

    fn device(name: &str, key: u8, port: u16) -> Device {
        Device {
            peer: PeerId([key; 32]),
            service: SERVICE.into(),
            name: name.into(),
            device_type: DeviceType::Unspecified,
            mode: Mode::Open,
            links: Links::UDP,
            protocol: 1,
            id_proven: false,
            paths: vec![Path {
                address: ([10, 0, 0, key], port).into(),
                rtt: Span::ZERO,
                heard: Moment::ZERO,
            }],
            found: Moment::ZERO,
            state: ClientState::Ready,
        }
    }

    #[test]
    fn the_one_that_is_meant() {
        let all = [device("Study", 1, 7470), device("Living room", 2, 7470), device("study", 3, 9)];
        let found = |typed: &str, pins: &[PeerId]| matching(all.iter(), typed, pins);
        let nobody = |_: &str| Vec::new();
        assert_eq!(choose("x", found("living ROOM", &[]), nobody).unwrap().peer, all[1].peer);
        let several = choose("study", found("study", &[]), nobody).unwrap_err();
        assert_eq!(several.exit, Exit::Trust);
        assert!(several.text.contains("10.0.0.1:7470") && several.text.contains("10.0.0.3:9"));
        assert_eq!(found("study", &[all[2].peer]).len(), 1);
        let known = |key: &str| {
            assert_eq!(key, "discover:study");
            vec![all[0].peer]
        };
        assert_eq!(choose("study", found("study", &[]), known).unwrap().peer, all[0].peer);
        assert_eq!(found("", &[]).len(), 3);
        assert_eq!(choose("attic", vec![], nobody).unwrap_err().exit, Exit::Connection);
    }

    #[test]
    fn names_become_one_word_that_does_not_depend_on_the_address() {
        assert_eq!(target(&device("Living Room", 1, 5)).key(), "discover:living%20room");
        assert_eq!(target(&device("Küche", 1, 6)).key(), "discover:k%c3%bcche");
        assert_eq!(target(&device("a:b%", 1, 6)).key(), "discover:a%3ab%25");
    }
}
