//! Reading and changing settings of an interface, and what differs from a profile.
//!
//! [`Tuner`] knows where each [`Key`] is: in the device, behind [`Ethtool`], or in a file below
//! `/sys` and `/proc/sys`. Both can be replaced, so that tests need no hardware.

use super::nic::{Key, Want};
use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;

/// Hash fields of UDP over IPv4 and IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// IPv4.
    Udp4,
    /// IPv6.
    Udp6,
}

/// Sizes of rings, or numbers of channels, and the most that there can be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rings {
    /// Descriptors of a receive ring.
    pub rx: u32,
    /// Descriptors of a transmit ring.
    pub tx: u32,
    /// The most for receiving.
    pub max_rx: u32,
    /// The most for sending.
    pub max_tx: u32,
}

/// Interrupt moderation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coalescing {
    /// Receiving follows the load.
    pub adaptive_rx: u32,
    /// Sending follows the load.
    pub adaptive_tx: u32,
    /// Microseconds after a received packet.
    pub rx_usecs: u32,
    /// Microseconds after a sent packet.
    pub tx_usecs: u32,
    /// Received packets.
    pub rx_frames: u32,
    /// Sent packets.
    pub tx_frames: u32,
}

/// A feature of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// The kernel's name.
    pub name: String,
    /// It is on.
    pub on: bool,
    /// It can be changed.
    pub changeable: bool,
}

/// What the kernel offers through `SIOCETHTOOL`. Reading needs no privilege.
///
/// Every method fails with the system's error; `EOPNOTSUPP` where the device has no such thing.
pub trait Ethtool {
    /// The driver's name.
    fn driver(&self) -> io::Result<String>;
    /// Ring sizes.
    fn rings(&self) -> io::Result<Rings>;
    /// Changes ring sizes; the most is ignored.
    fn set_rings(&self, rings: Rings) -> io::Result<()>;
    /// Combined channels, and the most of them.
    fn channels(&self) -> io::Result<(u32, u32)>;
    /// Changes the number of combined channels.
    fn set_channels(&self, combined: u32) -> io::Result<()>;
    /// Interrupt moderation.
    fn coalescing(&self) -> io::Result<Coalescing>;
    /// Changes interrupt moderation; what is not in the structure stays.
    fn set_coalescing(&self, to: Coalescing) -> io::Result<()>;
    /// All features.
    fn features(&self) -> io::Result<Vec<Feature>>;
    /// Switches a feature.
    fn set_feature(&self, name: &str, on: bool) -> io::Result<()>;
    /// Fields that a flow is hashed on, as the kernel's bits.
    fn hash(&self, flow: Flow) -> io::Result<u64>;
    /// Changes them.
    fn set_hash(&self, flow: Flow, fields: u64) -> io::Result<()>;
    /// Counters of the driver.
    fn counters(&self) -> io::Result<Vec<(String, u64)>>;
}

/// The interface of this name.
///
/// # Errors
/// There is none, or the system has no such call.
pub fn ethtool(nic: &str) -> io::Result<Box<dyn Ethtool>> {
    #[cfg(target_os = "linux")]
    {
        Ok(Box::new(crate::sys::linux::Interface::open(nic)?))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = nic;
        Err(io::Error::new(io::ErrorKind::Unsupported, "settings of interfaces need Linux"))
    }
}

/// A value as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The value.
    pub value: u64,
    /// The most that the device takes, where it says so.
    pub max: Option<u64>,
    /// It can be changed by someone who may.
    pub changeable: bool,
}

/// Reads and changes the settings of one interface.
pub struct Tuner {
    nic: String,
    ethtool: Box<dyn Ethtool>,
    sys: PathBuf,
    proc: PathBuf,
}

/// How a setting stands to what a profile wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// As wanted.
    Matches,
    /// Not as wanted, and can be changed.
    Differs,
    /// The device has no such thing, or does not let it be changed: why.
    Skipped(String),
    /// It could not be read: why.
    Unknown(String),
}

/// A setting as it is and as it is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// Which.
    pub key: Key,
    /// As it is; `None` where that cannot be told.
    pub current: Option<u64>,
    /// As it is wanted, within what the device takes.
    pub wanted: u64,
    /// What the profile says, where the device takes less.
    pub clamped_from: Option<u64>,
    /// How they stand.
    pub standing: Standing,
    /// Why this value.
    pub why: String,
}

/// What was being done when an error came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// [`Tuner::read`]: there is no value in the call that could be wrong.
    Read,
    /// [`Tuner::write`] of a setting that could be read.
    Write,
}

/// What an error says about a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The device or this kernel has no such thing, or nothing to change it with.
    Lacking,
    /// The thing is there, and does not take this value.
    Refused,
    /// Anything else: no privilege, the interface is gone, the device is broken.
    Failed,
}

impl Fault {
    /// The one place that decides what an error of the system means.
    ///
    /// `EINVAL` says that an argument is wrong. Where only the name of the thing is one, there is no
    /// such thing; where the thing is known to be there, it is the value.
    pub fn of(error: &io::Error, access: Access) -> Self {
        #[cfg(unix)]
        let out_of_range = error.raw_os_error() == Some(libc::ERANGE);
        #[cfg(not(unix))]
        let out_of_range = false;
        match (error.kind(), access) {
            (io::ErrorKind::Unsupported, _)
            | (io::ErrorKind::NotFound | io::ErrorKind::InvalidInput, Access::Read) => {
                Self::Lacking
            }
            (io::ErrorKind::InvalidInput, Access::Write) => Self::Refused,
            _ if out_of_range && access == Access::Write => Self::Refused,
            _ => Self::Failed,
        }
    }
}

fn lacking(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, what)
}

impl Tuner {
    /// For an interface: its device, and folders like `/sys` and `/proc`.
    pub fn new(nic: &str, ethtool: Box<dyn Ethtool>, sys: PathBuf, proc: PathBuf) -> Self {
        Self { nic: nic.to_owned(), ethtool, sys, proc }
    }

    /// For an interface of this machine.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn open(nic: &str) -> io::Result<Self> {
        Ok(Self::new(nic, ethtool(nic)?, "/sys".into(), "/proc".into()))
    }

    /// The device.
    pub fn ethtool(&self) -> &dyn Ethtool {
        &*self.ethtool
    }

    fn file(&self, key: &Key) -> PathBuf {
        let net = self.sys.join("class/net").join(&self.nic);
        match key {
            Key::Sysctl(name) => self.proc.join("sys").join(name.replace('.', "/")),
            Key::GroFlushTimeout => net.join("gro_flush_timeout"),
            Key::NapiDeferHardIrqs => net.join("napi_defer_hard_irqs"),
            _ => net.join("mtu"),
        }
    }

    /// A setting as it is.
    ///
    /// # Errors
    /// The system's; `Unsupported` where the device has no such thing.
    pub fn read(&self, key: &Key) -> io::Result<Reading> {
        let plain = |value: u32| Reading { value: value.into(), max: None, changeable: true };
        let upto = |value: u32, max: u32| Reading {
            max: Some(max.into()),
            changeable: max > 0,
            ..plain(value)
        };
        Ok(match key {
            Key::RxRing => self.ethtool.rings().map(|r| upto(r.rx, r.max_rx))?,
            Key::TxRing => self.ethtool.rings().map(|r| upto(r.tx, r.max_tx))?,
            Key::Channels => self.ethtool.channels().map(|(now, max)| upto(now, max))?,
            Key::AdaptiveRx => plain(self.ethtool.coalescing()?.adaptive_rx),
            Key::AdaptiveTx => plain(self.ethtool.coalescing()?.adaptive_tx),
            Key::RxUsecs => plain(self.ethtool.coalescing()?.rx_usecs),
            Key::TxUsecs => plain(self.ethtool.coalescing()?.tx_usecs),
            Key::RxFrames => plain(self.ethtool.coalescing()?.rx_frames),
            Key::TxFrames => plain(self.ethtool.coalescing()?.tx_frames),
            Key::Udp4Hash | Key::Udp6Hash => {
                let value = self.ethtool.hash(flow(key))?;
                Reading { value, max: None, changeable: true }
            }
            Key::Feature(name) => {
                let found = self.ethtool.features()?.into_iter().find(|f| f.name == *name);
                let found = found.ok_or_else(|| lacking("this kernel has no such feature"))?;
                Reading { value: found.on.into(), max: None, changeable: found.changeable }
            }
            Key::GroFlushTimeout | Key::NapiDeferHardIrqs | Key::Mtu | Key::Sysctl(_) => {
                let path = self.file(key);
                let text = fs::read_to_string(&path)?;
                let value = text.trim().parse().map_err(|_| io::ErrorKind::InvalidData)?;
                let changeable = !fs::metadata(&path)?.permissions().readonly();
                Reading { value, max: None, changeable }
            }
        })
    }

    /// Changes a setting. What the device made of it, which may be rounded, is to be read.
    ///
    /// # Errors
    /// The system's.
    pub fn write(&self, key: &Key, value: u64) -> io::Result<()> {
        let number = u32::try_from(value).map_err(|_| io::ErrorKind::InvalidInput)?;
        let coalesce = |change: fn(&mut Coalescing, u32)| {
            let mut to = self.ethtool.coalescing()?;
            change(&mut to, number);
            self.ethtool.set_coalescing(to)
        };
        match key {
            Key::RxRing => self.ethtool.set_rings(Rings { rx: number, ..self.ethtool.rings()? }),
            Key::TxRing => self.ethtool.set_rings(Rings { tx: number, ..self.ethtool.rings()? }),
            Key::Channels => self.ethtool.set_channels(number),
            Key::AdaptiveRx => coalesce(|to, v| to.adaptive_rx = v),
            Key::AdaptiveTx => coalesce(|to, v| to.adaptive_tx = v),
            Key::RxUsecs => coalesce(|to, v| to.rx_usecs = v),
            Key::TxUsecs => coalesce(|to, v| to.tx_usecs = v),
            Key::RxFrames => coalesce(|to, v| to.rx_frames = v),
            Key::TxFrames => coalesce(|to, v| to.tx_frames = v),
            Key::Udp4Hash | Key::Udp6Hash => self.ethtool.set_hash(flow(key), value),
            Key::Feature(name) => self.ethtool.set_feature(name, value != 0),
            Key::GroFlushTimeout | Key::NapiDeferHardIrqs | Key::Mtu | Key::Sysctl(_) => {
                let mut file =
                    fs::OpenOptions::new().write(true).truncate(true).open(self.file(key))?;
                file.write_all(format!("{value}\n").as_bytes())
            }
        }
    }

    /// Compares the interface with what is wanted; `cores` stands for "as many as processors".
    pub fn compare(&self, wants: &[Want], cores: usize) -> Vec<Comparison> {
        wants.iter().map(|want| self.compare_one(want, cores)).collect()
    }

    fn compare_one(&self, want: &Want, cores: usize) -> Comparison {
        let asked = want.value.unwrap_or(cores.max(1) as u64);
        let mut found = Comparison {
            key: want.key.clone(),
            current: None,
            wanted: asked,
            clamped_from: None,
            standing: Standing::Matches,
            why: want.why.clone(),
        };
        let reading = match self.read(&want.key) {
            Ok(reading) => reading,
            Err(error) => {
                found.standing = if Fault::of(&error, Access::Read) == Fault::Lacking {
                    Standing::Skipped("the device or this kernel has no such setting".to_owned())
                } else {
                    Standing::Unknown(error.to_string())
                };
                return found;
            }
        };
        found.current = Some(reading.value);
        if let Some(max) = reading.max.filter(|max| *max > 0 && *max < asked) {
            found.wanted = max;
            found.clamped_from = Some(asked);
        }
        let good =
            reading.value == found.wanted || want.key.at_least() && reading.value > found.wanted;
        if !good {
            found.standing = if reading.changeable {
                Standing::Differs
            } else {
                Standing::Skipped("is fixed here".to_owned())
            };
        }
        found
    }
}

fn flow(key: &Key) -> Flow {
    if *key == Key::Udp6Hash { Flow::Udp6 } else { Flow::Udp4 }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_argument_is_the_value_only_where_the_thing_is_known_to_be_there() {
        let of = |code, access| Fault::of(&io::Error::from_raw_os_error(code), access);
        for (code, read, write) in [
            (libc::EOPNOTSUPP, Fault::Lacking, Fault::Lacking),
            (libc::EINVAL, Fault::Lacking, Fault::Refused),
            (libc::ENOENT, Fault::Lacking, Fault::Failed),
            (libc::ERANGE, Fault::Failed, Fault::Refused),
            (libc::EPERM, Fault::Failed, Fault::Failed),
            (libc::ENODEV, Fault::Failed, Fault::Failed),
            (libc::EIO, Fault::Failed, Fault::Failed),
        ] {
            assert_eq!(of(code, Access::Read), read, "{code}");
            assert_eq!(of(code, Access::Write), write, "{code}");
        }
    }
}
