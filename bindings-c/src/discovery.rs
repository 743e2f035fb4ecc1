//! Discovery: finding devices of the local network.

use crate::abi::{self, Struct};
use crate::device::{trunk_device, trunk_discovery_event};
use crate::object::Object;
use crate::presence::{
    self, TRUNK_PRESENCE_NONE, client_state, id, trunk_interfaces, trunk_presence_problem,
    trunk_presence_state,
};
use crate::registry::{Kind, Registry};
use crate::result::{Error, Result, guard, trunk_result};
use crate::security::TRUNK_FINGERPRINT_BYTES;
use engine::discovery::{
    ClientConfig, ClientCounts, ClientEvent, Destination, Device, Discovery, DiscoveryConfig,
};
use engine::{Duration, PeerId, limits};
use std::collections::VecDeque;
use std::ffi::{c_char, c_void};
use std::sync::Arc;

/// A discovery. 0 is none. Discoveries and announcers belong to no engine.
pub type trunk_discovery = u64;

/// Whom to look for, and where. trunk_discovery_config_init fills in the defaults, which are stated
/// with each field. Times are nanoseconds.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct trunk_discovery_config {
    /// Size of this struct; set by trunk_discovery_config_init.
    pub struct_size: u32,
    /// Whether all devices of the local network are asked, by multicast. 1.
    pub group: u32,
    /// Find only devices of this service. NULL = of all.
    pub service: *const c_char,
    /// Find only the device that has this id, 1 to 64 bytes, and have it prove that. NULL.
    pub id: *const c_void,
    /// Bytes of it.
    pub id_size: usize,
    /// Fingerprints of devices to overlook, such as our own, TRUNK_FINGERPRINT_BYTES each, back to
    /// back; at most 16. NULL.
    pub ignore: *const u8,
    /// Number of them.
    pub ignore_count: usize,
    /// Single hosts to ask too, whether or not multicast reaches them: addresses with their ports,
    /// such as "192.0.2.7:7477"; at most 64. NULL.
    pub targets: *const *const c_char,
    /// Number of them.
    pub target_count: usize,
    /// On which interfaces devices are asked by multicast. NULL = the defaults.
    pub interfaces: *const trunk_interfaces,
    /// Between two questions once the first ones are asked; 500 ms to 10 min. 10 s.
    pub interval_ns: u64,
    /// A device from which nothing is heard for so long is lost; at least twice interval_ns and a
    /// second, at most 2 h. 35 s.
    pub heartbeat_ns: u64,
    /// UDP port of those who are asked by multicast. TRUNK_PRESENCE_PORT.
    pub port: u32,
    /// Must be 0.
    pub reserved: u32,
}

// SAFETY: `repr(C)`, starts with `struct_size`, integers and pointers only.
unsafe impl Struct for trunk_discovery_config {
    const NAME: &'static str = "trunk_discovery_config";

    fn defaults() -> Self {
        let config = DiscoveryConfig::default();
        Self {
            struct_size: 0,
            group: config.client.group.into(),
            service: std::ptr::null(),
            id: std::ptr::null(),
            id_size: 0,
            ignore: std::ptr::null(),
            ignore_count: 0,
            targets: std::ptr::null(),
            target_count: 0,
            interfaces: std::ptr::null(),
            interval_ns: config.client.interval.as_nanos(),
            heartbeat_ns: config.client.heartbeat.as_nanos(),
            port: config.port.into(),
            reserved: 0,
        }
    }
}

impl trunk_discovery_config {
    /// # Safety
    /// The pointers are NULL or point to what their fields say.
    unsafe fn convert(&self) -> Result<DiscoveryConfig> {
        let size = self.ignore_count.checked_mul(TRUNK_FINGERPRINT_BYTES);
        let size = size.ok_or(Error::invalid("ignore_count", "is out of range"))?;
        // SAFETY: by contract.
        unsafe {
            let (ignore, _) = abi::bytes(self.ignore, size, "ignore")?.as_chunks();
            let list = abi::array(self.targets, self.target_count, "targets")?;
            let mut targets = Vec::with_capacity(list.len().min(limits::MAX_PRESENCE_TARGETS + 1));
            for target in list {
                targets.push(abi::address(*target, "targets")?);
            }
            let client = ClientConfig {
                service: abi::optional_text(self.service, "service")?.unwrap_or_default().into(),
                id: id(self.id, self.id_size)?,
                ignore: ignore.iter().map(|key| PeerId(*key)).collect(),
                group: self.group != 0,
                targets,
                interval: Duration::from_nanos(self.interval_ns),
                heartbeat: Duration::from_nanos(self.heartbeat_ns),
            };
            client.validate()?;
            Ok(DiscoveryConfig {
                client,
                interfaces: trunk_interfaces::convert(self.interfaces)?,
                port: presence::port(self.port)?,
            })
        }
    }
}

/// What a discovery has done with what it received. New fields come at the end.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct trunk_discovery_counts {
    /// Size of this struct; set by trunk_discovery_counts_init.
    pub struct_size: u32,
    /// 0.
    pub reserved: u32,
    /// Questions asked.
    pub asked: u64,
    /// Valid answers.
    pub answers: u64,
    /// No presence message, or a malformed one.
    pub malformed: u64,
    /// Questions of others.
    pub not_answers: u64,
    /// Answers to nothing that was asked there, or that was asked too long ago.
    pub unasked: u64,
    /// Answers of another service, of a device that does not know the id, or of one to overlook.
    pub unwanted: u64,
    /// Answers for which there was no room.
    pub full: u64,
}

// SAFETY: `repr(C)`, starts with `struct_size`, integers only.
unsafe impl Struct for trunk_discovery_counts {
    const NAME: &'static str = "trunk_discovery_counts";

    fn defaults() -> Self {
        Self::from(ClientCounts::default())
    }
}

impl From<ClientCounts> for trunk_discovery_counts {
    fn from(counts: ClientCounts) -> Self {
        Self {
            struct_size: 0,
            reserved: 0,
            asked: counts.asked,
            answers: counts.answers,
            malformed: counts.malformed,
            not_answers: counts.not_answers,
            unasked: counts.unasked,
            unwanted: counts.unwanted,
            full: counts.full,
        }
    }
}

/// Fills struct_size bytes at config with the defaults. Call it as
/// trunk_discovery_config_init(&config).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_discovery_config_init_sized(
    config: *mut trunk_discovery_config,
    struct_size: usize,
) -> trunk_result {
    // SAFETY: handed on to the caller's contract.
    guard(|| unsafe { abi::init(config, struct_size) })
}

/// Fills struct_size bytes at counts with zeros and its size. Call it as
/// trunk_discovery_counts_init(&counts).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_discovery_counts_init_sized(
    counts: *mut trunk_discovery_counts,
    struct_size: usize,
) -> trunk_result {
    // SAFETY: handed on to the caller's contract.
    guard(|| unsafe { abi::init(counts, struct_size) })
}

/// A discovery with the events that the application has not taken yet.
struct Finder {
    discovery: Discovery,
    heartbeat: Duration,
    waiting: VecDeque<ClientEvent>,
}

static FINDERS: Registry<Object<Finder>> =
    Registry::new(Kind::Discovery, "invalid or already closed discovery");

fn named(discovery: trunk_discovery) -> Result<Arc<Object<Finder>>> {
    FINDERS.get(discovery)
}

impl Finder {
    fn device(&self, device: &Device) -> trunk_device {
        trunk_device::of(device, self.discovery.now(), self.heartbeat)
    }

    #[cfg(unix)]
    #[allow(clippy::unnecessary_wraps, reason = "other systems have none")]
    fn fd(&self) -> Option<i32> {
        Some(self.discovery.as_raw_fd())
    }

    #[cfg(not(unix))]
    fn fd(&self) -> Option<i32> {
        None
    }
}

/// Starts to look for devices and stores the discovery, which is valid until trunk_discovery_close.
/// The first question leaves with the first trunk_discovery_poll. config may be NULL: all devices
/// of all services on all interfaces. Everything that config points to is copied.
///
/// A discovery stands beside an engine, has no thread, and works only inside trunk_discovery_poll:
/// between two polls of more than heartbeat_ns all devices are lost. One thread at a time is inside
/// a discovery; while one polls, other calls with it give TRUNK_ERR_WOULD_BLOCK, except for
/// trunk_discovery_wake and trunk_discovery_close.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_SYSTEM
/// (no interface can be used; trunk_last_error has the reason for each).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_discovery_start(
    config: *const trunk_discovery_config,
    discovery: *mut trunk_discovery,
) -> trunk_result {
    guard(|| {
        abi::expect(discovery, "discovery")?;
        // SAFETY: a config whose pointers are NULL or point to what their fields say.
        let config = unsafe { abi::read(config)?.convert() }?;
        let heartbeat = config.client.heartbeat;
        let started = Discovery::start(config)?;
        let waker = started.waker();
        let finder = Finder { discovery: started, heartbeat, waiting: VecDeque::new() };
        let handle = FINDERS.insert(Object::new(finder, waker));
        // SAFETY: checked, and writable by contract.
        unsafe { abi::put(discovery, "discovery", handle) }
    })
}

/// Ends a discovery; the handle is stale afterwards. A thread that is inside
/// trunk_discovery_poll comes back at once, with TRUNK_ERR_INVALID_HANDLE.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_FORKED (nothing is freed).
#[unsafe(no_mangle)]
pub extern "C" fn trunk_discovery_close(discovery: trunk_discovery) -> trunk_result {
    guard(|| FINDERS.take(discovery)?.close())
}

/// Asks, hears, forgets; stores at most capacity events at events and their number at count. If
/// there is nothing to tell, waits for something for at most timeout_ns (TRUNK_WAIT_NOT,
/// TRUNK_WAIT_FOREVER, or nanoseconds) and may then store none. Events for which there is no room
/// wait: the next calls give them first, without waiting, asking or hearing. With NULL for events
/// and 0 for capacity, events are dropped and only counted: for applications that look at
/// trunk_discovery_devices.
///
/// Any thread, one at a time. BLOCKS for at most timeout_ns; trunk_discovery_wake and
/// trunk_discovery_close end it. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_WOULD_BLOCK (another thread is inside), TRUNK_ERR_SYSTEM
/// (nothing that has to do with a single interface), TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_discovery_poll(
    discovery: trunk_discovery,
    events: *mut trunk_discovery_event,
    capacity: usize,
    timeout_ns: i64,
    count: *mut usize,
) -> trunk_result {
    guard(|| {
        // SAFETY: writable by contract.
        unsafe { abi::put(count, "count", 0) }?;
        let object = named(discovery)?;
        if events.is_null() && capacity > 0 {
            return Err(Error::null("events"));
        }
        if !events.is_null() && capacity == 0 {
            return Err(Error::invalid("capacity", "must be at least 1, or events NULL"));
        }
        let timeout = presence::timeout(timeout_ns)?;
        let stored = object.lend(|finder| {
            if finder.waiting.is_empty() {
                finder.waiting.extend(finder.discovery.poll(timeout)?);
            }
            if events.is_null() {
                let dropped = finder.waiting.len();
                finder.waiting.clear();
                return Ok(dropped);
            }
            let (now, heartbeat) = (finder.discovery.now(), finder.heartbeat);
            let mut stored = 0;
            while stored < capacity
                && let Some(event) = finder.waiting.pop_front()
            {
                if let Some(event) = trunk_discovery_event::of(&event, now, heartbeat) {
                    // SAFETY: the caller's array has `capacity` places by contract.
                    unsafe { events.add(stored).write(event) };
                    stored += 1;
                }
            }
            Ok(stored)
        })?;
        // SAFETY: checked, and writable by contract.
        unsafe { abi::put(count, "count", stored) }
    })
}

/// Stores a file descriptor that is readable when trunk_discovery_poll has something to hear, for
/// an event loop of the application: wait until it is readable or trunk_discovery_next_timeout_ns
/// has passed, poll, and ask for the next timeout again. It belongs to the discovery: do not read
/// or close it.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_UNSUPPORTED (Windows), TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_discovery_fd(
    discovery: trunk_discovery,
    fd: *mut i32,
) -> trunk_result {
    guard(|| {
        let found = presence::descriptor(named(discovery)?.with(|finder| Ok(finder.fd()))?)?;
        // SAFETY: writable by contract.
        unsafe { abi::put(fd, "fd", found) }
    })
}

/// Stores how many nanoseconds may pass until trunk_discovery_poll has work even if nothing
/// arrives: 0 = now, also while events wait for which there was no room. Ask again after every
/// poll.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_discovery_next_timeout_ns(
    discovery: trunk_discovery,
    timeout_ns: *mut i64,
) -> trunk_result {
    guard(|| {
        let next = named(discovery)?.with(|finder| {
            let nothing_waits = finder.waiting.is_empty();
            Ok(if nothing_waits { presence::until(finder.discovery.next_timeout()) } else { 0 })
        })?;
        // SAFETY: writable by contract.
        unsafe { abi::put(timeout_ns, "timeout_ns", next) }
    })
}

/// Ends the wait of the thread that is inside trunk_discovery_poll, or of the next one, or makes
/// the descriptor readable.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_SYSTEM, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub extern "C" fn trunk_discovery_wake(discovery: trunk_discovery) -> trunk_result {
    guard(|| named(discovery)?.wake())
}

/// Stores the devices that are there, in the order of their fingerprints: at most capacity of them
/// at devices (NULL with a capacity of 0), and at count how many there are, which may be more.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_discovery_devices(
    discovery: trunk_discovery,
    devices: *mut trunk_device,
    capacity: usize,
    count: *mut usize,
) -> trunk_result {
    guard(|| {
        abi::expect_list(devices, capacity, "devices", count)?;
        named(discovery)?.with(|finder| {
            let list = finder.discovery.devices().map(|device| finder.device(device));
            // SAFETY: checked, and the caller's memory by contract.
            unsafe { abi::put_list(list, devices, capacity, count) }
        })
    })
}

/// Looks for devices for duration_ns, from start to end in one call, and stores those that are
/// there then as trunk_discovery_devices does. config may be NULL, as with trunk_discovery_start.
///
/// Any thread. BLOCKS for duration_ns, and nothing ends it before. Errors: TRUNK_ERR_NULL,
/// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_SYSTEM.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_discovery_find(
    config: *const trunk_discovery_config,
    duration_ns: i64,
    devices: *mut trunk_device,
    capacity: usize,
    count: *mut usize,
) -> trunk_result {
    guard(|| {
        abi::expect_list(devices, capacity, "devices", count)?;
        let duration =
            abi::limit(duration_ns).ok_or(Error::invalid("duration_ns", "is negative"))?;
        // SAFETY: a config whose pointers are NULL or point to what their fields say.
        let config = unsafe { abi::read(config)?.convert() }?;
        let heartbeat = config.client.heartbeat;
        let mut discovery = Discovery::start(config)?;
        let found = discovery.find(duration)?;
        let now = discovery.now();
        let list = found.iter().map(|device| trunk_device::of(device, now, heartbeat));
        // SAFETY: checked, and the caller's memory by contract.
        unsafe { abi::put_list(list, devices, capacity, count) }
    })
}

/// Stores the state of a discovery: TRUNK_PRESENCE_READY while a device is there, otherwise
/// TRUNK_PRESENCE_WAITING_FOR_RESPONSE.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_discovery_state(
    discovery: trunk_discovery,
    state: *mut trunk_presence_state,
) -> trunk_result {
    guard(|| {
        let known = named(discovery)?.with(|finder| Ok(client_state(finder.discovery.state())))?;
        // SAFETY: writable by contract.
        unsafe { abi::put(state, "state", known) }
    })
}

/// Stores the state of the session that is sought at one destination: at a single host, named by
/// its address as in targets, or by multicast (NULL). One that ends is followed by another at once.
/// TRUNK_PRESENCE_NONE when nobody is asked there.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_discovery_session(
    discovery: trunk_discovery,
    address: *const c_char,
    state: *mut trunk_presence_state,
) -> trunk_result {
    guard(|| {
        let object = named(discovery)?;
        let to = if address.is_null() {
            Destination::Group
        } else {
            // SAFETY: a string by contract.
            Destination::Host(unsafe { abi::address(address, "address") }?)
        };
        let known = object.with(|finder| Ok(finder.discovery.session(to)))?;
        // SAFETY: writable by contract.
        unsafe { abi::put(state, "state", known.map_or(TRUNK_PRESENCE_NONE, client_state)) }
    })
}

/// Stores what a discovery has done with what it received.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_discovery_get_counts(
    discovery: trunk_discovery,
    counts: *mut trunk_discovery_counts,
) -> trunk_result {
    guard(|| {
        abi::expect(counts, trunk_discovery_counts::NAME)?;
        let known = named(discovery)?.with(|finder| Ok(finder.discovery.counts()))?;
        // SAFETY: a struct by contract.
        unsafe { abi::write(counts, &known.into()) }
    })
}

/// Stores what goes wrong on single interfaces now: at most capacity problems at problems (NULL
/// with a capacity of 0), and at count how many there are, which may be more.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_discovery_problems(
    discovery: trunk_discovery,
    problems: *mut trunk_presence_problem,
    capacity: usize,
    count: *mut usize,
) -> trunk_result {
    guard(|| {
        abi::expect_list(problems, capacity, "problems", count)?;
        named(discovery)?.with(|finder| {
            let list = finder.discovery.problems().iter().map(Into::into);
            // SAFETY: checked, and the caller's memory by contract.
            unsafe { abi::put_list(list, problems, capacity, count) }
        })
    })
}

/// Tells a discovery that the network has changed: with the next poll it looks at the interfaces
/// and asks as at the beginning. Not needed, but faster than waiting.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_WOULD_BLOCK,
/// TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub extern "C" fn trunk_discovery_network_changed(discovery: trunk_discovery) -> trunk_result {
    guard(|| {
        named(discovery)?.with(|finder| {
            finder.discovery.network_changed();
            Ok(())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_survive_the_way_there_and_back() {
        // SAFETY: the pointers are NULL.
        let config = unsafe { trunk_discovery_config::defaults().convert() }.unwrap();
        assert_eq!(format!("{config:?}"), format!("{:?}", DiscoveryConfig::default()));
    }

    #[test]
    fn settings_arrive() {
        let keys = [[1; 32], [2; 32]];
        let targets = [c"192.0.2.7:7".as_ptr(), c"[fe80::1%3]:8".as_ptr()];
        let config = trunk_discovery_config {
            group: 0,
            service: c"chess.example".as_ptr(),
            id: c"secret".as_ptr().cast(),
            id_size: 6,
            ignore: keys.as_ptr().cast(),
            ignore_count: 2,
            targets: targets.as_ptr(),
            target_count: 2,
            interval_ns: 1_000_000_000,
            heartbeat_ns: 3_000_000_000,
            port: 1234,
            ..trunk_discovery_config::defaults()
        };
        // SAFETY: the pointers point to what their fields say.
        let DiscoveryConfig { client, port, .. } = unsafe { config.convert() }.unwrap();
        assert!(!client.group && client.id.is_some());
        assert_eq!((client.service.as_str(), port), ("chess.example", 1234));
        assert_eq!(client.ignore, keys.map(PeerId));
        assert_eq!(client.targets.len(), 2);
        assert_eq!(client.interval, Duration::from_secs(1));
        assert_eq!(client.heartbeat, Duration::from_secs(3));
    }

    #[test]
    fn errors_name_the_field() {
        let wrong = |change: fn(&mut trunk_discovery_config)| {
            let mut config = trunk_discovery_config::defaults();
            change(&mut config);
            // SAFETY: the pointers are NULL or point to static strings.
            unsafe { config.convert() }.unwrap_err().to_string()
        };
        assert!(wrong(|c| c.service = c"a b".as_ptr()).contains("service"));
        assert!(wrong(|c| c.service = c"\xff".as_ptr()).contains("service"));
        assert!(wrong(|c| c.id_size = 3).contains("id is NULL"));
        assert!(wrong(|c| c.id = c"".as_ptr().cast()).contains("id"));
        assert!(wrong(|c| c.ignore_count = 1).contains("ignore"));
        assert!(wrong(|c| c.ignore_count = usize::MAX).contains("ignore_count"));
        assert!(wrong(|c| c.target_count = 1).contains("targets"));
        assert!(wrong(|c| c.group = 0).contains("targets"));
        assert!(wrong(|c| c.interval_ns = 1).contains("interval"));
        assert!(wrong(|c| c.heartbeat_ns = 1).contains("heartbeat"));
        assert!(wrong(|c| c.port = 0).contains("port"));
        assert!(wrong(|c| c.port = 65536).contains("port"));
    }
}
