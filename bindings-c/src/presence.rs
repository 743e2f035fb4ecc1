//! What discoveries and announcers have in common.

use crate::abi::{self, Struct};
use crate::result::{
    Error, Result, TRUNK_ERR_INTERNAL, TRUNK_ERR_SYSTEM, TRUNK_ERR_UNSUPPORTED, guard, trunk_result,
};
use engine::discovery::{
    ClientState, DeviceId, DiscoveryError, HostState, Interfaces, Links, PORT, Problem,
};
use std::ffi::{CStr, c_char, c_void};
use std::io::ErrorKind;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// UDP port on which announcers hear questions. They come by multicast to 239.255.84.75 and
/// ff12::d452:4b50, or to the announcer's own addresses.
pub const TRUNK_PRESENCE_PORT: u32 = 7477;
const _: () = assert!(TRUNK_PRESENCE_PORT == PORT as u32);

/// What kind of device it is: one of these, or another number up to 255.
pub type trunk_device_type = u32;

/// Not said.
pub const TRUNK_DEVICE_TYPE_UNSPECIFIED: trunk_device_type = 0;
/// Desktop computer.
pub const TRUNK_DEVICE_TYPE_DESKTOP: trunk_device_type = 1;
/// Laptop.
pub const TRUNK_DEVICE_TYPE_LAPTOP: trunk_device_type = 2;
/// Server.
pub const TRUNK_DEVICE_TYPE_SERVER: trunk_device_type = 3;
/// Phone.
pub const TRUNK_DEVICE_TYPE_PHONE: trunk_device_type = 4;
/// Tablet.
pub const TRUNK_DEVICE_TYPE_TABLET: trunk_device_type = 5;
/// Game console.
pub const TRUNK_DEVICE_TYPE_CONSOLE: trunk_device_type = 6;
/// Television or set-top box.
pub const TRUNK_DEVICE_TYPE_TELEVISION: trunk_device_type = 7;
/// Headset for virtual or augmented reality.
pub const TRUNK_DEVICE_TYPE_HEADSET: trunk_device_type = 8;
/// Built into something: camera, speaker, instrument.
pub const TRUNK_DEVICE_TYPE_EMBEDDED: trunk_device_type = 9;

/// Whom a device lets in: one of these, or another number up to 255.
pub type trunk_device_mode = u32;

/// Anybody may connect.
pub const TRUNK_DEVICE_MODE_OPEN: trunk_device_mode = 0;
/// Only those whom it knows: by key, credential or list.
pub const TRUNK_DEVICE_MODE_KNOWN: trunk_device_mode = 1;
/// It is ready to be paired with a new peer.
pub const TRUNK_DEVICE_MODE_PAIRING: trunk_device_mode = 2;
/// It takes nobody at the moment.
pub const TRUNK_DEVICE_MODE_BUSY: trunk_device_mode = 3;

/// Which links a device listens on, all at one port number: one of these, or both, added up.
pub type trunk_device_links = u32;

/// UDP.
pub const TRUNK_DEVICE_LINK_UDP: trunk_device_links = 1;
/// TLS over TCP.
pub const TRUNK_DEVICE_LINK_TLS: trunk_device_links = 2;

/// What a session is between one who asks and one who answers.
pub type trunk_presence_state = u32;

/// No session.
pub const TRUNK_PRESENCE_NONE: trunk_presence_state = 0;
/// Asking: a question was published, and no answer has come.
pub const TRUNK_PRESENCE_WAITING_FOR_RESPONSE: trunk_presence_state = 1;
/// Announcing: nobody has asked.
pub const TRUNK_PRESENCE_WAITING_FOR_REQUEST: trunk_presence_state = 2;
/// The other side was heard within the heartbeat.
pub const TRUNK_PRESENCE_READY: trunk_presence_state = 3;
/// Over: the heartbeat has expired, or the device has left.
pub const TRUNK_PRESENCE_ENDED: trunk_presence_state = 4;

pub(crate) const fn client_state(state: ClientState) -> trunk_presence_state {
    match state {
        ClientState::WaitingForPresenceResponse => TRUNK_PRESENCE_WAITING_FOR_RESPONSE,
        ClientState::Ready => TRUNK_PRESENCE_READY,
        ClientState::Ended => TRUNK_PRESENCE_ENDED,
    }
}

pub(crate) const fn host_state(state: HostState) -> trunk_presence_state {
    match state {
        HostState::WaitingForPresenceRequest => TRUNK_PRESENCE_WAITING_FOR_REQUEST,
        HostState::Ready => TRUNK_PRESENCE_READY,
        HostState::Ended => TRUNK_PRESENCE_ENDED,
    }
}

pub(crate) fn links_of(links: Links) -> trunk_device_links {
    let both = [(Links::UDP, TRUNK_DEVICE_LINK_UDP), (Links::TLS, TRUNK_DEVICE_LINK_TLS)];
    both.iter().filter(|(link, _)| links.contains(*link)).map(|(_, bit)| bit).sum()
}

pub(crate) const fn links(bits: trunk_device_links) -> Result<Links> {
    const BOTH: u32 = TRUNK_DEVICE_LINK_UDP | TRUNK_DEVICE_LINK_TLS;
    match bits {
        TRUNK_DEVICE_LINK_UDP => Ok(Links::UDP),
        TRUNK_DEVICE_LINK_TLS => Ok(Links::TLS),
        BOTH => Ok(Links::UDP.and(Links::TLS)),
        _ => Err(Error::invalid("links", "must lie in 1..=3")),
    }
}

/// Names of the device types.
const TYPES: [(trunk_device_type, &CStr); 10] = [
    (TRUNK_DEVICE_TYPE_UNSPECIFIED, c"unspecified"),
    (TRUNK_DEVICE_TYPE_DESKTOP, c"desktop"),
    (TRUNK_DEVICE_TYPE_LAPTOP, c"laptop"),
    (TRUNK_DEVICE_TYPE_SERVER, c"server"),
    (TRUNK_DEVICE_TYPE_PHONE, c"phone"),
    (TRUNK_DEVICE_TYPE_TABLET, c"tablet"),
    (TRUNK_DEVICE_TYPE_CONSOLE, c"console"),
    (TRUNK_DEVICE_TYPE_TELEVISION, c"television"),
    (TRUNK_DEVICE_TYPE_HEADSET, c"headset"),
    (TRUNK_DEVICE_TYPE_EMBEDDED, c"embedded"),
];

/// Names of the modes.
const MODES: [(trunk_device_mode, &CStr); 4] = [
    (TRUNK_DEVICE_MODE_OPEN, c"open"),
    (TRUNK_DEVICE_MODE_KNOWN, c"known"),
    (TRUNK_DEVICE_MODE_PAIRING, c"pairing"),
    (TRUNK_DEVICE_MODE_BUSY, c"busy"),
];

fn name(names: &[(u32, &'static CStr)], number: u32) -> *const c_char {
    let found = names.iter().find(|(known, _)| *known == number);
    found.map_or(c"other", |(_, name)| name).as_ptr()
}

/// The name of a device type in small letters: a static string, never NULL, "other" for numbers
/// without a name.
///
/// Any thread, never blocks.
#[unsafe(no_mangle)]
pub extern "C" fn trunk_device_type_str(device_type: trunk_device_type) -> *const c_char {
    name(&TYPES, device_type)
}

/// The name of a mode in small letters: a static string, never NULL, "other" for numbers without a
/// name.
///
/// Any thread, never blocks.
#[unsafe(no_mangle)]
pub extern "C" fn trunk_device_mode_str(mode: trunk_device_mode) -> *const c_char {
    name(&MODES, mode)
}

/// Which network interfaces take part. trunk_interfaces_init fills in the defaults, which are
/// stated with each field.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct trunk_interfaces {
    /// Size of this struct; set by trunk_interfaces_init.
    pub struct_size: u32,
    /// The loopback interface too, so that programs of this machine find each other without any
    /// network. Not looked at for interfaces that are named. 1.
    pub loopback: u32,
    /// Names of interfaces, such as "eth0". NULL = all that are up.
    pub names: *const *const c_char,
    /// Number of them.
    pub name_count: usize,
    /// Over IPv4. 1.
    pub ipv4: u32,
    /// Over IPv6. 1.
    pub ipv6: u32,
    /// How often interfaces are looked for that have come or gone; 100 ms to 1 h. 5 s.
    pub rescan_ns: u64,
}

// SAFETY: `repr(C)`, starts with `struct_size`, integers and pointers only.
unsafe impl Struct for trunk_interfaces {
    const NAME: &'static str = "trunk_interfaces";

    fn defaults() -> Self {
        let all = Interfaces::default();
        Self {
            struct_size: 0,
            loopback: all.loopback.into(),
            names: std::ptr::null(),
            name_count: 0,
            ipv4: all.ipv4.into(),
            ipv6: all.ipv6.into(),
            rescan_ns: all.rescan.as_nanos() as u64,
        }
    }
}

impl trunk_interfaces {
    /// The interfaces at a pointer; the defaults for NULL.
    ///
    /// # Safety
    /// As [`abi::read`], and `names` is NULL or points to that many strings.
    pub(crate) unsafe fn convert(from: *const Self) -> Result<Interfaces> {
        // SAFETY: handed on.
        let from = unsafe { abi::read(from) }?;
        // SAFETY: handed on.
        let list = unsafe { abi::array(from.names, from.name_count, "interfaces names") }?;
        let mut names = Vec::with_capacity(list.len());
        for name in list {
            // SAFETY: handed on.
            names.push(unsafe { abi::text(*name, "interfaces names") }?.to_owned());
        }
        let rescan = Duration::from_nanos(from.rescan_ns);
        if !(Duration::from_millis(100)..=Duration::from_secs(3600)).contains(&rescan) {
            return Err(Error::invalid("rescan_ns", "must lie between 100 ms and 1 h"));
        }
        Ok(Interfaces {
            names,
            loopback: from.loopback != 0,
            ipv4: from.ipv4 != 0,
            ipv6: from.ipv6 != 0,
            rescan,
        })
    }
}

/// Fills struct_size bytes at interfaces with the defaults. Call it as
/// trunk_interfaces_init(&interfaces).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_interfaces_init_sized(
    interfaces: *mut trunk_interfaces,
    struct_size: usize,
) -> trunk_result {
    // SAFETY: handed on to the caller's contract.
    guard(|| unsafe { abi::init(interfaces, struct_size) })
}

/// What is wrong on an interface.
pub type trunk_problem_kind = u32;

/// Something else than the following.
pub const TRUNK_PROBLEM_OTHER: trunk_problem_kind = 0;
/// Another program has the port and does not share it.
pub const TRUNK_PROBLEM_ADDRESS_IN_USE: trunk_problem_kind = 1;
/// The address cannot be used, or not yet.
pub const TRUNK_PROBLEM_ADDRESS_NOT_AVAILABLE: trunk_problem_kind = 2;
/// The system does not allow it, such as by a firewall.
pub const TRUNK_PROBLEM_PERMISSION_DENIED: trunk_problem_kind = 3;
/// The network is down, or what is sent reaches nobody.
pub const TRUNK_PROBLEM_UNREACHABLE: trunk_problem_kind = 4;

/// Something that goes wrong on one interface. Nothing else suffers from it, and it is tried again
/// and again. Of fixed size: it does not grow. Texts are cut to their fields and end with a NUL.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct trunk_presence_problem {
    /// What is wrong.
    pub kind: trunk_problem_kind,
    /// 0.
    pub reserved: u32,
    /// The interface's name.
    pub interface_name: [c_char; 64],
    /// Its address that was to be used, without a port.
    pub address: [c_char; 64],
    /// What was being done.
    pub doing: [c_char; 128],
    /// The system's words for what is wrong.
    pub error: [c_char; 128],
}

impl From<&Problem> for trunk_presence_problem {
    fn from(problem: &Problem) -> Self {
        Self {
            kind: match problem.kind {
                ErrorKind::AddrInUse => TRUNK_PROBLEM_ADDRESS_IN_USE,
                ErrorKind::AddrNotAvailable => TRUNK_PROBLEM_ADDRESS_NOT_AVAILABLE,
                ErrorKind::PermissionDenied => TRUNK_PROBLEM_PERMISSION_DENIED,
                ErrorKind::NetworkDown
                | ErrorKind::NetworkUnreachable
                | ErrorKind::HostUnreachable => TRUNK_PROBLEM_UNREACHABLE,
                _ => TRUNK_PROBLEM_OTHER,
            },
            reserved: 0,
            interface_name: abi::fixed_text(&problem.interface),
            address: abi::fixed_text(&problem.address.to_string()),
            doing: abi::fixed_text(&problem.doing),
            error: abi::fixed_text(&problem.error),
        }
    }
}

impl From<DiscoveryError> for Error {
    fn from(error: DiscoveryError) -> Self {
        match error {
            DiscoveryError::Settings(error) => error.into(),
            DiscoveryError::System { .. } | DiscoveryError::NoInterface(_) => {
                Self::text(TRUNK_ERR_SYSTEM, error.to_string())
            }
            _ => Self::text(TRUNK_ERR_INTERNAL, error.to_string()),
        }
    }
}

/// A UDP port.
pub(crate) fn port(port: u32) -> Result<u16> {
    let port = u16::try_from(port).ok().filter(|port| *port != 0);
    port.ok_or(Error::invalid("port", "must lie in 1..=65535"))
}

/// A device id of the caller; `None` for NULL.
///
/// # Safety
/// `id` is NULL or points to `size` readable bytes.
pub(crate) unsafe fn id(id: *const c_void, size: usize) -> Result<Option<DeviceId>> {
    if id.is_null() && size == 0 {
        return Ok(None);
    }
    // SAFETY: handed on.
    let bytes = unsafe { abi::bytes(id, size, "id") }?;
    Ok(Some(DeviceId::new(bytes)?))
}

/// An address of the caller without a port.
///
/// # Safety
/// As [`abi::text`].
pub(crate) unsafe fn ip(from: *const c_char, what: &'static str) -> Result<IpAddr> {
    // SAFETY: handed on.
    let text = unsafe { abi::text(from, what) }?;
    text.parse().map_err(|_| {
        Error::text(
            crate::result::TRUNK_ERR_INVALID_ARGUMENT,
            format!("{what} \"{text}\" is no address without a port, such as 192.0.2.7 or ::"),
        )
    })
}

/// Nanoseconds until a point in time; 0 when it is over.
pub(crate) fn until(when: Instant) -> i64 {
    let left = when.saturating_duration_since(Instant::now());
    i64::try_from(left.as_nanos()).unwrap_or(i64::MAX)
}

/// A limit of a poll: negative = none.
pub(crate) fn timeout(ns: i64) -> Result<Duration> {
    if ns < crate::receive::TRUNK_WAIT_FOREVER {
        return Err(Error::invalid("timeout_ns", "is negative"));
    }
    Ok(abi::limit(ns).unwrap_or(Duration::MAX))
}

/// A descriptor for an event loop, where the system has such.
pub(crate) fn descriptor(found: Option<i32>) -> Result<i32> {
    let why = "this system has no descriptor to wait for: poll with a timeout";
    found.ok_or(Error::new(TRUNK_ERR_UNSUPPORTED, why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::discovery::{DeviceType, Mode};

    #[test]
    fn names_are_those_of_the_engine() {
        // SAFETY: static strings.
        let text = |p| unsafe { CStr::from_ptr(p) }.to_str().unwrap();
        for code in 0..=12u8 {
            let (kind, mode) = (DeviceType::from_code(code), Mode::from_code(code));
            if !matches!(kind, DeviceType::Other(_)) {
                assert_eq!(text(trunk_device_type_str(code.into())), kind.to_string());
            }
            if !matches!(mode, Mode::Other(_)) {
                assert_eq!(text(trunk_device_mode_str(code.into())), mode.to_string());
            }
        }
        assert!(matches!(DeviceType::from_code(TYPES.len() as u8), DeviceType::Other(_)));
        assert!(matches!(Mode::from_code(MODES.len() as u8), Mode::Other(_)));
        assert_eq!(text(trunk_device_type_str(u32::MAX)), "other");
        assert_eq!(text(trunk_device_mode_str(4)), "other");
    }

    #[test]
    fn links_there_and_back() {
        for bits in 1..=3 {
            assert_eq!(links_of(links(bits).unwrap()), bits);
        }
        assert!(links(0).is_err() && links(4).is_err());
    }

    #[test]
    fn interfaces_are_read() {
        // SAFETY: NULL, or names that are there.
        unsafe {
            let all = trunk_interfaces::convert(std::ptr::null()).unwrap();
            assert_eq!(all, Interfaces::default());
            let names = [c"eth0".as_ptr(), c"lo".as_ptr()];
            let mut some = trunk_interfaces {
                struct_size: size_of::<trunk_interfaces>() as u32,
                names: names.as_ptr(),
                name_count: 2,
                loopback: 0,
                ipv6: 0,
                rescan_ns: 700_000_000,
                ..trunk_interfaces::defaults()
            };
            let read = trunk_interfaces::convert(&raw const some).unwrap();
            assert_eq!(read.names, ["eth0", "lo"]);
            assert!(!read.loopback && read.ipv4 && !read.ipv6);
            assert_eq!(read.rescan, Duration::from_millis(700));
            some.rescan_ns = 7;
            let error = trunk_interfaces::convert(&raw const some).unwrap_err();
            assert!(error.to_string().contains("rescan_ns"), "{error}");
            some.rescan_ns = u64::MAX;
            assert!(trunk_interfaces::convert(&raw const some).is_err());
            some.names = std::ptr::null();
            let error = trunk_interfaces::convert(&raw const some).unwrap_err();
            assert_eq!(error.to_string(), "interfaces names is NULL");
        }
    }

    #[test]
    fn problems_say_what_is_wrong() {
        let problem = Problem {
            interface: "eth0".to_owned(),
            address: "192.0.2.7".parse().unwrap(),
            doing: "bind 192.0.2.7:7477".to_owned(),
            error: "x".repeat(300),
            kind: ErrorKind::AddrInUse,
        };
        let c = trunk_presence_problem::from(&problem);
        // SAFETY: texts with a NUL.
        let text =
            |t: &[c_char]| unsafe { CStr::from_ptr(t.as_ptr()) }.to_str().unwrap().to_owned();
        assert_eq!(c.kind, TRUNK_PROBLEM_ADDRESS_IN_USE);
        assert_eq!(
            (text(&c.interface_name), text(&c.address)),
            ("eth0".into(), "192.0.2.7".into())
        );
        assert_eq!(text(&c.doing), "bind 192.0.2.7:7477");
        assert_eq!(text(&c.error).len(), 127);
        let error: Error = DiscoveryError::NoInterface(vec![problem]).into();
        assert_eq!(error.code, TRUNK_ERR_SYSTEM);
        assert!(error.to_string().contains("eth0 (192.0.2.7)"), "{error}");
    }

    #[test]
    fn limits_are_checked() {
        assert_eq!(timeout(-1).unwrap(), Duration::MAX);
        assert_eq!(timeout(5).unwrap(), Duration::from_nanos(5));
        assert!(timeout(-2).is_err());
        assert!(port(0).is_err() && port(65536).is_err());
        assert_eq!(port(65535).unwrap(), u16::MAX);
        assert_eq!(until(Instant::now()), 0);
    }
}
