//! What an announcer is told, and what it tells of itself.

use crate::abi::{self, Struct};
use crate::device::TRUNK_DEVICE_NAME_BYTES;
use crate::presence::{
    self, TRUNK_DEVICE_LINK_UDP, TRUNK_DEVICE_MODE_OPEN, TRUNK_DEVICE_TYPE_UNSPECIFIED,
    TRUNK_PRESENCE_NONE, host_state, id, ip, links_of, trunk_device_links, trunk_device_mode,
    trunk_device_type, trunk_interfaces, trunk_presence_state,
};
use crate::result::{Error, Result, guard, trunk_result};
use crate::security::TRUNK_FINGERPRINT_BYTES;
use engine::discovery::{
    Announcement, Announcer, AnnouncerConfig, Answers, DeviceType, HostConfig, HostCounts, Mode,
    Reach,
};
use engine::{Duration, PeerId};
use std::ffi::{c_char, c_void};
use std::net::{IpAddr, SocketAddr};

/// From how far away a question to one of our own addresses may come. Questions by multicast are
/// answered only on the link, whatever this says.
pub type trunk_reach = u32;

/// From the link.
pub const TRUNK_REACH_LINK: trunk_reach = 0;
/// From the link and from private addresses.
pub const TRUNK_REACH_SITE: trunk_reach = 1;
/// From everywhere.
pub const TRUNK_REACH_ANYWHERE: trunk_reach = 2;

/// Which questions are answered.
pub type trunk_answers = u32;

/// All that are meant for us.
pub const TRUNK_ANSWERS_EVERYBODY: trunk_answers = 0;
/// Only those that show that they know our id: the device shows itself to nobody else.
pub const TRUNK_ANSWERS_THOSE_WHO_KNOW_THE_ID: trunk_answers = 1;

/// What is told to those who ask. trunk_announcement_init fills in the defaults, which are stated
/// with each field.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct trunk_announcement {
    /// Size of this struct; set by trunk_announcement_init.
    pub struct_size: u32,
    /// What kind of device it is. TRUNK_DEVICE_TYPE_UNSPECIFIED.
    pub device_type: trunk_device_type,
    /// For people: 1 to 63 bytes of UTF-8 without control characters. Required.
    pub name: *const c_char,
    /// Which application it is: 1 to 63 letters, digits, ".", "-" or "_". Required.
    pub service: *const c_char,
    /// An id of 1 to 64 bytes that the application chooses and hands out, such as a random number
    /// of 128 bits: lets those who know it find this device among all others. It is never sent.
    /// NULL.
    pub id: *const c_void,
    /// Bytes of it.
    pub id_size: usize,
    /// Our fingerprint, which connections will prove; see trunk_identity_fingerprint. Required.
    pub peer: [u8; TRUNK_FINGERPRINT_BYTES],
    /// Whom it lets in. TRUNK_DEVICE_MODE_OPEN.
    pub mode: trunk_device_mode,
    /// Which links it listens on. TRUNK_DEVICE_LINK_UDP.
    pub links: trunk_device_links,
    /// The port that it listens on. Required, but see trunk_announcer_start_for_listener.
    pub port: u32,
    /// Must be 0.
    pub reserved: u32,
}

// SAFETY: `repr(C)`, starts with `struct_size`, integers and pointers only.
unsafe impl Struct for trunk_announcement {
    const NAME: &'static str = "trunk_announcement";

    fn defaults() -> Self {
        Self {
            struct_size: 0,
            device_type: TRUNK_DEVICE_TYPE_UNSPECIFIED,
            name: std::ptr::null(),
            service: std::ptr::null(),
            id: std::ptr::null(),
            id_size: 0,
            peer: [0; TRUNK_FINGERPRINT_BYTES],
            mode: TRUNK_DEVICE_MODE_OPEN,
            links: TRUNK_DEVICE_LINK_UDP,
            port: 0,
            reserved: 0,
        }
    }
}

impl trunk_announcement {
    /// What is announced, with the port of `listener` unless it is stated.
    ///
    /// # Safety
    /// The pointers are NULL or point to what their fields say.
    unsafe fn convert(&self, listener: Option<SocketAddr>) -> Result<Announcement> {
        let small = |n: u32, field| {
            u8::try_from(n).map_err(|_| Error::invalid(field, "must be at most 255"))
        };
        if self.peer == [0; TRUNK_FINGERPRINT_BYTES] {
            return Err(Error::invalid("peer", "is not stated: the fingerprint of our identity"));
        }
        let port = match (self.port, listener) {
            (0, Some(listener)) => listener.port(),
            (port, _) => presence::port(port)?,
        };
        // SAFETY: by contract.
        let announcement = unsafe {
            Announcement {
                device_type: DeviceType::from_code(small(self.device_type, "device_type")?),
                mode: Mode::from_code(small(self.mode, "mode")?),
                links: presence::links(self.links)?,
                id: id(self.id, self.id_size)?,
                ..Announcement::new(
                    abi::text(self.name, "name")?,
                    abi::text(self.service, "service")?,
                    PeerId(self.peer),
                    port,
                )
            }
        };
        announcement.validate()?;
        Ok(announcement)
    }

    /// The announcement at a pointer.
    ///
    /// # Safety
    /// As [`abi::read`], and as [`convert`](Self::convert).
    pub(crate) unsafe fn required(
        from: *const Self,
        listener: Option<SocketAddr>,
    ) -> Result<Announcement> {
        if from.is_null() {
            return Err(Error::null("announcement"));
        }
        // SAFETY: handed on.
        unsafe { abi::read(from)?.convert(listener) }
    }
}

/// What to announce, and where. trunk_announcer_config_init fills in the defaults, which are stated
/// with each field. Times are nanoseconds.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct trunk_announcer_config {
    /// Size of this struct; set by trunk_announcer_config_init.
    pub struct_size: u32,
    /// UDP port on which questions are heard. TRUNK_PRESENCE_PORT.
    pub port: u32,
    /// What is told to those who ask. Required.
    pub announcement: *const trunk_announcement,
    /// Addresses, without ports, that listeners are bound to: only over these is anything answered,
    /// so that whoever finds us can also connect. "0.0.0.0" and "::" stand for all of their family.
    /// Required, but see trunk_announcer_start_for_listener.
    pub listen: *const *const c_char,
    /// Number of them.
    pub listen_count: usize,
    /// On which interfaces. NULL = the defaults.
    pub interfaces: *const trunk_interfaces,
    /// A session ends when nothing is heard for so long; 1 s to 1 h. 35 s.
    pub heartbeat_ns: u64,
    /// Answers to questions by multicast are held back by up to so much, at random, so that those
    /// of many devices do not collide; at most 1 s. 100 ms.
    pub spread_ns: u64,
    /// Which questions are answered. TRUNK_ANSWERS_EVERYBODY.
    pub answers: trunk_answers,
    /// From how far away. TRUNK_REACH_SITE.
    pub reach: trunk_reach,
    /// Answers a second in all, 1 to 10000, and twice as many at once. 50.
    pub answers_per_second: u32,
    /// Answers a second to one source address, at most answers_per_second, and twice as many at
    /// once. 5.
    pub answers_per_source: u32,
}

// SAFETY: `repr(C)`, starts with `struct_size`, integers and pointers only.
unsafe impl Struct for trunk_announcer_config {
    const NAME: &'static str = "trunk_announcer_config";

    fn defaults() -> Self {
        let host = HostConfig::default();
        Self {
            struct_size: 0,
            port: presence::TRUNK_PRESENCE_PORT,
            announcement: std::ptr::null(),
            listen: std::ptr::null(),
            listen_count: 0,
            interfaces: std::ptr::null(),
            heartbeat_ns: host.heartbeat.as_nanos(),
            spread_ns: host.spread.as_nanos(),
            answers: match host.answers {
                Answers::Everybody => TRUNK_ANSWERS_EVERYBODY,
                Answers::ThoseWhoKnowTheId => TRUNK_ANSWERS_THOSE_WHO_KNOW_THE_ID,
            },
            reach: match host.reach {
                Reach::Link => TRUNK_REACH_LINK,
                Reach::Site => TRUNK_REACH_SITE,
                Reach::Anywhere => TRUNK_REACH_ANYWHERE,
            },
            answers_per_second: host.answers_per_second,
            answers_per_source: host.answers_per_source,
        }
    }
}

impl trunk_announcer_config {
    fn host(&self) -> Result<HostConfig> {
        let host = HostConfig {
            answers: match self.answers {
                TRUNK_ANSWERS_EVERYBODY => Answers::Everybody,
                TRUNK_ANSWERS_THOSE_WHO_KNOW_THE_ID => Answers::ThoseWhoKnowTheId,
                _ => return Err(Error::invalid("answers", "must lie in 0..=1")),
            },
            reach: match self.reach {
                TRUNK_REACH_LINK => Reach::Link,
                TRUNK_REACH_SITE => Reach::Site,
                TRUNK_REACH_ANYWHERE => Reach::Anywhere,
                _ => return Err(Error::invalid("reach", "must lie in 0..=2")),
            },
            heartbeat: Duration::from_nanos(self.heartbeat_ns),
            spread: Duration::from_nanos(self.spread_ns),
            answers_per_second: self.answers_per_second,
            answers_per_source: self.answers_per_source,
        };
        host.validate()?;
        Ok(host)
    }

    /// What is announced and where, for a listener if one is given.
    ///
    /// # Safety
    /// The pointers are NULL or point to what their fields say.
    pub(crate) unsafe fn convert(&self, listener: Option<SocketAddr>) -> Result<AnnouncerConfig> {
        // SAFETY: by contract.
        unsafe {
            let list = abi::array(self.listen, self.listen_count, "listen")?;
            let mut listen = Vec::with_capacity(list.len());
            for address in list {
                listen.push(ip(*address, "listen")?);
            }
            if listen.is_empty() {
                let none = Error::invalid("listen", "must name an address that is listened at");
                listen.push(listener.ok_or(none)?.ip());
            }
            Ok(AnnouncerConfig {
                announcement: trunk_announcement::required(self.announcement, listener)?,
                listen,
                host: self.host()?,
                interfaces: trunk_interfaces::convert(self.interfaces)?,
                port: presence::port(self.port)?,
            })
        }
    }
}

/// What an announcer tells those who ask, and whether there are any. New fields come at the end.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct trunk_announcer_info {
    /// Size of this struct; set by trunk_announcer_info_init.
    pub struct_size: u32,
    /// The state.
    pub state: trunk_presence_state,
    /// Devices that asked within the heartbeat.
    pub sessions: u64,
    /// Our fingerprint.
    pub peer: [u8; TRUNK_FINGERPRINT_BYTES],
    /// The name.
    pub name: [c_char; TRUNK_DEVICE_NAME_BYTES],
    /// The service.
    pub service: [c_char; TRUNK_DEVICE_NAME_BYTES],
    /// What kind of device it is.
    pub device_type: trunk_device_type,
    /// Whom it lets in.
    pub mode: trunk_device_mode,
    /// Which links it listens on.
    pub links: trunk_device_links,
    /// The port that it listens on.
    pub port: u32,
    /// Whether it has an id.
    pub has_id: u32,
    /// Whether its listeners can be reached from this machine only.
    pub local_only: u32,
}

// SAFETY: `repr(C)`, starts with `struct_size`, integers only.
unsafe impl Struct for trunk_announcer_info {
    const NAME: &'static str = "trunk_announcer_info";

    fn defaults() -> Self {
        Self {
            struct_size: 0,
            state: TRUNK_PRESENCE_NONE,
            sessions: 0,
            peer: [0; TRUNK_FINGERPRINT_BYTES],
            name: [0; TRUNK_DEVICE_NAME_BYTES],
            service: [0; TRUNK_DEVICE_NAME_BYTES],
            device_type: TRUNK_DEVICE_TYPE_UNSPECIFIED,
            mode: TRUNK_DEVICE_MODE_OPEN,
            links: 0,
            port: 0,
            has_id: 0,
            local_only: 0,
        }
    }
}

impl trunk_announcer_info {
    pub(crate) fn of(announcer: &Announcer, local_only: bool) -> Self {
        let told = announcer.announcement();
        Self {
            struct_size: 0,
            state: host_state(announcer.state()),
            sessions: announcer.sessions() as u64,
            peer: told.peer.0,
            name: abi::fixed_text(&told.name),
            service: abi::fixed_text(&told.service),
            device_type: told.device_type.code().into(),
            mode: told.mode.code().into(),
            links: links_of(told.links),
            port: told.port.into(),
            has_id: told.id.is_some().into(),
            local_only: local_only.into(),
        }
    }
}

/// What an announcer has done with what it received. New fields come at the end.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct trunk_announcer_counts {
    /// Size of this struct; set by trunk_announcer_counts_init.
    pub struct_size: u32,
    /// 0.
    pub reserved: u32,
    /// Answers given, farewells included.
    pub answered: u64,
    /// No presence message, or a malformed one.
    pub malformed: u64,
    /// Answers of others.
    pub not_questions: u64,
    /// From an address that could not have asked, or from too far away.
    pub wrong_source: u64,
    /// For another service or another device.
    pub not_for_us: u64,
    /// Above a rate.
    pub rate_limited: u64,
    /// The answer to the same question was waiting already.
    pub repeated: u64,
    /// Too many answers were waiting.
    pub full: u64,
    /// Sessions begun.
    pub sessions: u64,
    /// Sessions that ended because their heartbeat expired.
    pub expired: u64,
}

// SAFETY: `repr(C)`, starts with `struct_size`, integers only.
unsafe impl Struct for trunk_announcer_counts {
    const NAME: &'static str = "trunk_announcer_counts";

    fn defaults() -> Self {
        Self::from(HostCounts::default())
    }
}

impl From<HostCounts> for trunk_announcer_counts {
    fn from(counts: HostCounts) -> Self {
        Self {
            struct_size: 0,
            reserved: 0,
            answered: counts.answered,
            malformed: counts.malformed,
            not_questions: counts.not_questions,
            wrong_source: counts.wrong_source,
            not_for_us: counts.not_for_us,
            rate_limited: counts.rate_limited,
            repeated: counts.repeated,
            full: counts.full,
            sessions: counts.sessions,
            expired: counts.expired,
        }
    }
}

/// An address at which an announcer hears. Of fixed size: it does not grow.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct trunk_presence_address {
    /// The interface's name.
    pub interface_name: [c_char; 64],
    /// Its address, without a port.
    pub address: [c_char; 64],
}

impl trunk_presence_address {
    pub(crate) fn of((name, ip): (&str, IpAddr)) -> Self {
        Self { interface_name: abi::fixed_text(name), address: abi::fixed_text(&ip.to_string()) }
    }
}

/// Fills struct_size bytes at announcement with the defaults. Call it as
/// trunk_announcement_init(&announcement).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_announcement_init_sized(
    announcement: *mut trunk_announcement,
    struct_size: usize,
) -> trunk_result {
    // SAFETY: handed on to the caller's contract.
    guard(|| unsafe { abi::init(announcement, struct_size) })
}

/// Fills struct_size bytes at config with the defaults. Call it as
/// trunk_announcer_config_init(&config).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_announcer_config_init_sized(
    config: *mut trunk_announcer_config,
    struct_size: usize,
) -> trunk_result {
    // SAFETY: handed on to the caller's contract.
    guard(|| unsafe { abi::init(config, struct_size) })
}

/// Fills struct_size bytes at info with zeros and its size. Call it as
/// trunk_announcer_info_init(&info).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_announcer_info_init_sized(
    info: *mut trunk_announcer_info,
    struct_size: usize,
) -> trunk_result {
    // SAFETY: handed on to the caller's contract.
    guard(|| unsafe { abi::init(info, struct_size) })
}

/// Fills struct_size bytes at counts with zeros and its size. Call it as
/// trunk_announcer_counts_init(&counts).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_announcer_counts_init_sized(
    counts: *mut trunk_announcer_counts,
    struct_size: usize,
) -> trunk_result {
    // SAFETY: handed on to the caller's contract.
    guard(|| unsafe { abi::init(counts, struct_size) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    fn announcement() -> trunk_announcement {
        trunk_announcement {
            struct_size: size_of::<trunk_announcement>() as u32,
            name: c"Living room".as_ptr(),
            service: c"chess.example".as_ptr(),
            peer: [7; 32],
            port: 7470,
            ..trunk_announcement::defaults()
        }
    }

    #[test]
    fn defaults_are_those_of_the_engine() {
        let (all, told) = ([c"0.0.0.0".as_ptr()], announcement());
        let config = trunk_announcer_config {
            announcement: &raw const told,
            listen: all.as_ptr(),
            listen_count: 1,
            ..trunk_announcer_config::defaults()
        };
        // SAFETY: the pointers point to what their fields say.
        let config = unsafe { config.convert(None) }.unwrap();
        let told = Announcement::new("Living room", "chess.example", PeerId([7; 32]), 7470);
        let plain = AnnouncerConfig::new(told, Ipv4Addr::UNSPECIFIED.into());
        assert_eq!(format!("{config:?}"), format!("{plain:?}"));
    }

    #[test]
    fn settings_arrive() {
        let told = trunk_announcement {
            device_type: 77,
            mode: 3,
            links: 3,
            id: c"secret".as_ptr().cast(),
            id_size: 6,
            ..announcement()
        };
        let listen = [c"::".as_ptr(), c"192.0.2.7".as_ptr()];
        let config = trunk_announcer_config {
            port: 1234,
            announcement: &raw const told,
            listen: listen.as_ptr(),
            listen_count: 2,
            heartbeat_ns: 2_000_000_000,
            spread_ns: 5,
            answers: TRUNK_ANSWERS_THOSE_WHO_KNOW_THE_ID,
            reach: TRUNK_REACH_ANYWHERE,
            answers_per_second: 9,
            answers_per_source: 8,
            ..trunk_announcer_config::defaults()
        };
        // SAFETY: the pointers point to what their fields say.
        let config = unsafe { config.convert(None) }.unwrap();
        let told = config.announcement;
        assert_eq!((told.device_type, told.mode), (DeviceType::Other(77), Mode::Busy));
        assert_eq!(links_of(told.links), 3);
        assert!(told.id.is_some());
        assert_eq!(config.listen, [IpAddr::from(Ipv6Addr::UNSPECIFIED), [192, 0, 2, 7].into()]);
        assert_eq!((config.port, config.host.heartbeat), (1234, Duration::from_secs(2)));
        assert_eq!(config.host.spread, Duration::from_nanos(5));
        assert_eq!(config.host.answers, Answers::ThoseWhoKnowTheId);
        assert_eq!(config.host.reach, Reach::Anywhere);
        assert_eq!((config.host.answers_per_second, config.host.answers_per_source), (9, 8));
    }

    #[test]
    fn a_listener_fills_in_what_is_not_stated() {
        let told = trunk_announcement { port: 0, ..announcement() };
        let mut config = trunk_announcer_config {
            announcement: &raw const told,
            ..trunk_announcer_config::defaults()
        };
        let listener = Some("127.0.0.1:7001".parse().unwrap());
        let listen = [c"::1".as_ptr()];
        // SAFETY: the pointers are NULL or point to what their fields say.
        unsafe {
            let made = config.convert(listener).unwrap();
            assert_eq!((made.announcement.port, made.is_local_only()), (7001, true));
            assert_eq!(made.listen, [IpAddr::from([127, 0, 0, 1])]);
            assert!(config.convert(None).unwrap_err().to_string().contains("listen"));
            (config.listen, config.listen_count) = (listen.as_ptr(), 1);
            let stated = announcement();
            assert!(config.convert(None).unwrap_err().to_string().contains("port"));
            config.announcement = &raw const stated;
            let made = config.convert(listener).unwrap();
            assert_eq!(made.announcement.port, 7470);
            assert_eq!(made.listen, [IpAddr::from(Ipv6Addr::LOCALHOST)]);
        }
    }

    #[test]
    fn errors_name_the_field() {
        let wrong = |change: fn(&mut trunk_announcement)| {
            let mut told = announcement();
            change(&mut told);
            // SAFETY: the pointers are NULL or point to static strings.
            unsafe { told.convert(None) }.unwrap_err().to_string()
        };
        assert!(wrong(|a| a.name = std::ptr::null()).contains("name"));
        assert!(wrong(|a| a.name = c"a\nb".as_ptr()).contains("name"));
        assert!(wrong(|a| a.service = c"".as_ptr()).contains("service"));
        assert!(wrong(|a| a.device_type = 256).contains("device_type"));
        assert!(wrong(|a| a.mode = 256).contains("mode"));
        assert!(wrong(|a| a.links = 0).contains("links"));
        assert!(wrong(|a| a.links = 4).contains("links"));
        assert!(wrong(|a| a.port = 65536).contains("port"));
        assert!(wrong(|a| a.peer = [0; 32]).contains("peer"));
        assert!(wrong(|a| a.id_size = 1).contains("id"));
        let wrong = |change: fn(&mut trunk_announcer_config)| {
            let mut config = trunk_announcer_config::defaults();
            change(&mut config);
            config.host().unwrap_err().to_string()
        };
        assert!(wrong(|c| c.answers = 2).contains("answers"));
        assert!(wrong(|c| c.reach = 3).contains("reach"));
        assert!(wrong(|c| c.heartbeat_ns = 1).contains("heartbeat"));
        assert!(wrong(|c| c.spread_ns = u64::MAX).contains("spread"));
        assert!(wrong(|c| c.answers_per_second = 0).contains("answers_per_second"));
        assert!(wrong(|c| c.answers_per_source = 99).contains("answers_per_source"));
        // SAFETY: the pointers are NULL or point to what their fields say.
        unsafe {
            let name = [c"localhost".as_ptr()];
            let mut config = trunk_announcer_config {
                listen: name.as_ptr(),
                listen_count: 1,
                ..trunk_announcer_config::defaults()
            };
            let error = config.convert(None).unwrap_err().to_string();
            assert!(error.contains("listen \"localhost\""), "{error}");
            let all = [c"::".as_ptr()];
            config.listen = all.as_ptr();
            assert_eq!(config.convert(None).unwrap_err().to_string(), "announcement is NULL");
        }
    }
}
