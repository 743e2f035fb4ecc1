//! What a discovery finds, and what it tells of it. Values without pointers, in the caller's memory.

use crate::abi;
use crate::presence::{
    TRUNK_PRESENCE_NONE, TRUNK_PRESENCE_READY, client_state, links_of, trunk_device_links,
    trunk_device_mode, trunk_device_type, trunk_presence_state,
};
use crate::security::TRUNK_FINGERPRINT_BYTES;
use engine::discovery::{ClientEvent, Destination, Device};
use engine::{Duration, Instant, limits};
use std::ffi::c_char;

/// Bytes of the name of a device or a service, final NUL included.
pub const TRUNK_DEVICE_NAME_BYTES: usize = 64;
/// Addresses of one device.
pub const TRUNK_DEVICE_PATHS: usize = 8;
/// Devices that one discovery knows at once; others are counted and not shown.
pub const TRUNK_MAX_DEVICES: usize = 1024;
const _: () = {
    assert!(TRUNK_DEVICE_NAME_BYTES > limits::MAX_PRESENCE_NAME);
    assert!(TRUNK_DEVICE_NAME_BYTES > limits::MAX_PRESENCE_SERVICE);
    assert!(TRUNK_DEVICE_PATHS == limits::MAX_DEVICE_ADDRESSES);
    assert!(TRUNK_MAX_DEVICES == limits::MAX_PRESENCE_DEVICES);
};

/// A way to a device.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct trunk_device_path {
    /// Where it listens, with the port, as trunk_connect takes it.
    pub address: [c_char; 64],
    /// Between question and answer. A device can make it shorter by lying.
    pub rtt_ns: u64,
    /// For how long nothing has been heard from there.
    pub heard_ns: u64,
}

/// A device as it describes itself: believe nothing of it that no connection has proved. Connect to
/// the addresses of its paths, all of them at once, and pin peer (TRUNK_TRUST_PINS). One device is
/// told from another by peer, port and service. Of fixed size: it does not grow.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct trunk_device {
    /// Its fingerprint.
    pub peer: [u8; TRUNK_FINGERPRINT_BYTES],
    /// For people: UTF-8 without control characters.
    pub name: [c_char; TRUNK_DEVICE_NAME_BYTES],
    /// Which application it is.
    pub service: [c_char; TRUNK_DEVICE_NAME_BYTES],
    /// What kind of device it is.
    pub device_type: trunk_device_type,
    /// Whom it lets in.
    pub mode: trunk_device_mode,
    /// Which links it listens on.
    pub links: trunk_device_links,
    /// The port that it listens on.
    pub port: u32,
    /// Version of the connection protocol that it speaks.
    pub protocol: u32,
    /// Whether it has shown that it knows the id that was asked for.
    pub id_proven: u32,
    /// TRUNK_PRESENCE_READY, or TRUNK_PRESENCE_ENDED for one that is lost.
    pub state: trunk_presence_state,
    /// Paths that are valid, 1 to TRUNK_DEVICE_PATHS.
    pub path_count: u32,
    /// For how long it has been known.
    pub found_ns: u64,
    /// For how long nothing has been heard from it.
    pub heard_ns: u64,
    /// It is lost after so long unless something is heard; 0 for one that is lost.
    pub ttl_ns: u64,
    /// Where it listens, the shortest way first.
    pub paths: [trunk_device_path; TRUNK_DEVICE_PATHS],
    /// 0.
    pub reserved: [u64; 8],
}

impl trunk_device {
    const NONE: Self = Self {
        peer: [0; TRUNK_FINGERPRINT_BYTES],
        name: [0; TRUNK_DEVICE_NAME_BYTES],
        service: [0; TRUNK_DEVICE_NAME_BYTES],
        device_type: 0,
        mode: 0,
        links: 0,
        port: 0,
        protocol: 0,
        id_proven: 0,
        state: TRUNK_PRESENCE_NONE,
        path_count: 0,
        found_ns: 0,
        heard_ns: 0,
        ttl_ns: 0,
        paths: [trunk_device_path { address: [0; 64], rtt_ns: 0, heard_ns: 0 }; TRUNK_DEVICE_PATHS],
        reserved: [0; 8],
    };

    pub(crate) fn of(device: &Device, now: Instant, heartbeat: Duration) -> Self {
        let heard = now.since(device.heard());
        let state = client_state(device.state);
        let lost = state != TRUNK_PRESENCE_READY;
        let ttl = if lost { Duration::ZERO } else { heartbeat.saturating_sub(heard) };
        let mut ways: Vec<_> = device.paths.iter().collect();
        ways.sort_by_key(|path| path.rtt);
        ways.truncate(TRUNK_DEVICE_PATHS);
        let mut paths = Self::NONE.paths;
        for (path, way) in paths.iter_mut().zip(&ways) {
            path.address = abi::fixed_text(&way.address.to_string());
            path.rtt_ns = way.rtt.as_nanos();
            path.heard_ns = now.since(way.heard).as_nanos();
        }
        Self {
            peer: device.peer.0,
            name: abi::fixed_text(&device.name),
            service: abi::fixed_text(&device.service),
            device_type: device.device_type.code().into(),
            mode: device.mode.code().into(),
            links: links_of(device.links),
            port: device.port().into(),
            protocol: device.protocol,
            id_proven: device.id_proven.into(),
            state,
            path_count: ways.len() as u32,
            found_ns: now.since(device.found).as_nanos(),
            heard_ns: heard.as_nanos(),
            ttl_ns: ttl.as_nanos(),
            paths,
            reserved: [0; 8],
        }
    }
}

/// What a discovery has to tell.
pub type trunk_discovery_event_type = u32;

/// A device that was not known answered: device.
pub const TRUNK_DISCOVERY_FOUND: trunk_discovery_event_type = 1;
/// A device says something else of itself, or has one more address: device.
pub const TRUNK_DISCOVERY_CHANGED: trunk_discovery_event_type = 2;
/// A device left, or its heartbeat expired: device.
pub const TRUNK_DISCOVERY_LOST: trunk_discovery_event_type = 3;
/// Nobody there has answered for the heartbeat; asking goes on: address.
pub const TRUNK_DISCOVERY_SILENT: trunk_discovery_event_type = 4;

/// One event of a discovery. It points to nothing and belongs to the caller. Of fixed size: it does
/// not grow.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct trunk_discovery_event {
    /// What it is.
    pub r#type: trunk_discovery_event_type,
    /// 0.
    pub reserved: u32,
    /// TRUNK_DISCOVERY_SILENT: the single host that was asked; empty for all by multicast.
    pub address: [c_char; 64],
    /// The device; all 0 with TRUNK_DISCOVERY_SILENT.
    pub device: trunk_device,
}

const _: () = {
    assert!(size_of::<trunk_device_path>() == 80);
    assert!(size_of::<trunk_device>() == 920);
    assert!(size_of::<trunk_discovery_event>() == 992);
};

impl trunk_discovery_event {
    /// `None` for what this interface has no event for.
    pub(crate) fn of(event: &ClientEvent, now: Instant, heartbeat: Duration) -> Option<Self> {
        let none = Self { r#type: 0, reserved: 0, address: [0; 64], device: trunk_device::NONE };
        let about = |r#type, device| {
            Some(Self { r#type, device: trunk_device::of(device, now, heartbeat), ..none })
        };
        match event {
            ClientEvent::Found(device) => about(TRUNK_DISCOVERY_FOUND, device),
            ClientEvent::Changed(device) => about(TRUNK_DISCOVERY_CHANGED, device),
            ClientEvent::Lost(device) => about(TRUNK_DISCOVERY_LOST, device),
            ClientEvent::Silent(at) => {
                let address = match at {
                    Destination::Group => none.address,
                    Destination::Host(host) => abi::fixed_text(&host.to_string()),
                };
                Some(Self { r#type: TRUNK_DISCOVERY_SILENT, address, ..none })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::PeerId;
    use engine::discovery::{ClientState, DeviceType, Links, Mode, Path};
    use std::ffi::CStr;

    fn text(chars: &[c_char]) -> &str {
        // SAFETY: a text with a NUL.
        unsafe { CStr::from_ptr(chars.as_ptr()) }.to_str().unwrap()
    }

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    fn device() -> Device {
        let long = "[2001:db8:1111:2222:3333:4444:5555:6666%4294967295]:65535".parse().unwrap();
        let path = |address, rtt, heard| Path {
            address,
            rtt: Duration::from_millis(rtt),
            heard: at(heard),
        };
        Device {
            peer: PeerId([7; 32]),
            service: "s".repeat(63),
            name: "n".repeat(63),
            device_type: DeviceType::Other(200),
            mode: Mode::Busy,
            links: Links::UDP.and(Links::TLS),
            protocol: 3,
            id_proven: true,
            paths: vec![path("192.0.2.7:65535".parse().unwrap(), 9, 4000), path(long, 2, 3000)],
            found: at(1000),
            state: ClientState::Ready,
        }
    }

    #[test]
    fn everything_fits_its_fixed_fields() {
        let device = device();
        let c = trunk_device::of(&device, at(5000), Duration::from_secs(35));
        assert_eq!((text(&c.name), text(&c.service)), (&*device.name, &*device.service));
        assert_eq!((c.device_type, c.mode, c.links), (200, 3, 3));
        assert_eq!((c.peer, c.port, c.protocol, c.id_proven), ([7; 32], 65535, 3, 1));
        assert_eq!((c.state, c.path_count), (TRUNK_PRESENCE_READY, 2));
        let seconds = |n: u64| n * 1_000_000_000;
        assert_eq!((c.found_ns, c.heard_ns, c.ttl_ns), (seconds(4), seconds(1), seconds(34)));
        let [first, second, third, ..] = &c.paths;
        assert_eq!(text(&first.address), device.paths[1].address.to_string());
        assert_eq!((first.rtt_ns, first.heard_ns), (2_000_000, seconds(2)));
        assert_eq!((text(&second.address), text(&third.address)), ("192.0.2.7:65535", ""));
        assert!(text(&first.address).parse::<std::net::SocketAddr>().is_ok());
    }

    #[test]
    fn events_say_what_they_are_about() {
        let of = |event| trunk_discovery_event::of(&event, at(5000), Duration::from_secs(35));
        let found = of(ClientEvent::Found(device())).unwrap();
        assert_eq!((found.r#type, found.device.peer), (TRUNK_DISCOVERY_FOUND, [7; 32]));
        let changed = of(ClientEvent::Changed(device())).unwrap();
        assert_eq!(changed.r#type, TRUNK_DISCOVERY_CHANGED);
        let gone = Device { state: ClientState::Ended, ..device() };
        let lost = of(ClientEvent::Lost(gone)).unwrap();
        assert_eq!((lost.r#type, lost.device.ttl_ns), (TRUNK_DISCOVERY_LOST, 0));
        let silent = of(ClientEvent::Silent(Destination::Group)).unwrap();
        assert_eq!((silent.r#type, text(&silent.address)), (TRUNK_DISCOVERY_SILENT, ""));
        let host = Destination::Host("192.0.2.7:7477".parse().unwrap());
        let silent = of(ClientEvent::Silent(host)).unwrap();
        assert_eq!((text(&silent.address), silent.device.path_count), ("192.0.2.7:7477", 0));
    }
}
