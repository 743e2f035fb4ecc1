//! What a profile says about the interface itself, in `[nic.both]`, `[nic.latency]` and
//! `[nic.throughput]`, and the names and texts of its settings.

use super::profile::{MIN_REASON, Setting};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// What an interface is to be good at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// The shortest delay.
    Latency,
    /// The most bytes for the processor's time.
    #[default]
    Throughput,
}

/// The settings of an interface.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct NicProfile {
    /// For any purpose.
    #[serde(default)]
    pub both: NicSettings,
    /// For [`Purpose::Latency`]; goes before `both`.
    #[serde(default)]
    pub latency: NicSettings,
    /// For [`Purpose::Throughput`]; goes before `both`.
    #[serde(default)]
    pub throughput: NicSettings,
}

/// A number of channels (queues with both directions).
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(untagged)]
pub enum Channels {
    /// So many.
    Number(u64),
    /// As many as something that this machine has.
    By(ChannelsBy),
}

/// What the number of channels follows.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum ChannelsBy {
    /// Processors that the process may use.
    Cores,
}

/// Where the interrupts of an interface should be.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum IrqAffinity {
    /// Each on one processor. Advice: no command moves interrupts.
    OneCore,
}

/// Settings of an interface; what is left out stays as it is.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct NicSettings {
    /// Descriptors of a receive ring.
    pub rx_ring: Option<Setting<u64>>,
    /// Descriptors of a transmit ring.
    pub tx_ring: Option<Setting<u64>>,
    /// Combined channels.
    pub channels: Option<Setting<Channels>>,
    /// Interrupt moderation of receiving follows the load.
    pub adaptive_rx: Option<Setting<bool>>,
    /// Interrupt moderation of sending follows the load.
    pub adaptive_tx: Option<Setting<bool>>,
    /// Microseconds after a received packet until the interrupt.
    pub rx_usecs: Option<Setting<u64>>,
    /// Microseconds after a sent packet until the interrupt.
    pub tx_usecs: Option<Setting<u64>>,
    /// Received packets that bring the interrupt earlier.
    pub rx_frames: Option<Setting<u64>>,
    /// Sent packets that bring the interrupt earlier.
    pub tx_frames: Option<Setting<u64>>,
    /// Features by the kernel's name, such as `tx-udp-segmentation`.
    #[serde(default)]
    pub features: BTreeMap<String, Setting<bool>>,
    /// Fields that UDP over IPv4 is hashed on, as letters: `sdfn` for addresses and ports.
    pub udp4_hash: Option<Setting<String>>,
    /// The same for IPv6.
    pub udp6_hash: Option<Setting<String>>,
    /// Nanoseconds between polls while interrupts are deferred.
    pub gro_flush_timeout_ns: Option<Setting<u64>>,
    /// Empty polls before interrupts are switched on again.
    pub napi_defer_hard_irqs: Option<Setting<u64>>,
    /// Bytes of an IP packet.
    pub mtu: Option<Setting<u64>>,
    /// Settings of the whole system, such as `net.core.rmem_max`.
    #[serde(default)]
    pub sysctls: BTreeMap<String, Setting<u64>>,
    /// Advice on interrupts; nothing is set.
    pub irq_affinity: Option<Setting<IrqAffinity>>,
}

/// System-wide settings that a profile may name.
pub const SYSCTLS: [&str; 5] = [
    "net.core.rmem_max",
    "net.core.wmem_max",
    "net.core.netdev_max_backlog",
    "net.core.busy_poll",
    "net.core.busy_read",
];

/// A setting of an interface, or of the system for it. Its value is a number: 0 and 1 for off and
/// on, and for a hash the bits of the kernel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// `channels`.
    Channels,
    /// `ring.rx`.
    RxRing,
    /// `ring.tx`.
    TxRing,
    /// `coalesce.adaptive-rx`.
    AdaptiveRx,
    /// `coalesce.adaptive-tx`.
    AdaptiveTx,
    /// `coalesce.rx-usecs`.
    RxUsecs,
    /// `coalesce.tx-usecs`.
    TxUsecs,
    /// `coalesce.rx-frames`.
    RxFrames,
    /// `coalesce.tx-frames`.
    TxFrames,
    /// `hash.udp4`.
    Udp4Hash,
    /// `hash.udp6`.
    Udp6Hash,
    /// `gro_flush_timeout`.
    GroFlushTimeout,
    /// `napi_defer_hard_irqs`.
    NapiDeferHardIrqs,
    /// `mtu`.
    Mtu,
    /// `feature.` and its name.
    Feature(String),
    /// `sysctl.` and its name.
    Sysctl(String),
}

/// Those with a fixed name: it, and the range of values.
const FIXED: [(Key, &str, u64, u64); 14] = [
    (Key::Channels, "channels", 1, 1024),
    (Key::RxRing, "ring.rx", 1, 65_536),
    (Key::TxRing, "ring.tx", 1, 65_536),
    (Key::AdaptiveRx, "coalesce.adaptive-rx", 0, 1),
    (Key::AdaptiveTx, "coalesce.adaptive-tx", 0, 1),
    (Key::RxUsecs, "coalesce.rx-usecs", 0, 10_000),
    (Key::TxUsecs, "coalesce.tx-usecs", 0, 10_000),
    (Key::RxFrames, "coalesce.rx-frames", 0, 65_535),
    (Key::TxFrames, "coalesce.tx-frames", 0, 65_535),
    (Key::Udp4Hash, "hash.udp4", 0, u32::MAX as u64),
    (Key::Udp6Hash, "hash.udp6", 0, u32::MAX as u64),
    (Key::GroFlushTimeout, "gro_flush_timeout", 0, 10_000_000),
    (Key::NapiDeferHardIrqs, "napi_defer_hard_irqs", 0, 1000),
    (Key::Mtu, "mtu", 1280, 65_535),
];

/// Letters of hash fields, as ethtool has them, and their bits.
const HASH: [(char, u64); 8] = [
    ('m', 1 << 1),
    ('v', 1 << 2),
    ('t', 1 << 3),
    ('s', 1 << 4),
    ('d', 1 << 5),
    ('f', 1 << 6),
    ('n', 1 << 7),
    ('r', 1 << 31),
];

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Feature(name) => write!(f, "feature.{name}"),
            Self::Sysctl(name) => write!(f, "sysctl.{name}"),
            fixed => {
                f.write_str(FIXED.iter().find(|(key, ..)| key == fixed).map_or("", |found| found.1))
            }
        }
    }
}

impl FromStr for Key {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(name) = text.strip_prefix("feature.") {
            return Ok(Self::Feature(name.to_owned()));
        }
        if let Some(name) = text.strip_prefix("sysctl.") {
            let known = SYSCTLS.contains(&name);
            return known
                .then(|| Self::Sysctl(name.to_owned()))
                .ok_or_else(|| format!("no sysctl \"{name}\"; there are {}", SYSCTLS.join(", ")));
        }
        let found = FIXED.iter().find(|(_, name, ..)| *name == text);
        found.map(|(key, ..)| key.clone()).ok_or_else(|| format!("no setting \"{text}\""))
    }
}

impl Key {
    /// Whether a change can interrupt the link for a moment.
    pub fn disruptive(&self) -> bool {
        matches!(self, Self::Channels | Self::RxRing | Self::TxRing | Self::Mtu)
    }

    /// Whether more than what is wanted is as good.
    pub fn at_least(&self) -> bool {
        matches!(self, Self::Sysctl(name) if !name.contains("busy"))
    }

    /// A value as text: `on`, `sdfn`, `4096`.
    pub fn show(&self, value: u64) -> String {
        match self {
            Self::AdaptiveRx | Self::AdaptiveTx | Self::Feature(_) => {
                if value == 0 { "off" } else { "on" }.to_owned()
            }
            Self::Udp4Hash | Self::Udp6Hash => {
                let bits = HASH.iter().filter(|(_, bit)| value & bit != 0);
                let letters: String = bits.map(|(letter, _)| letter).collect();
                if letters.is_empty() { "none".to_owned() } else { letters }
            }
            _ => value.to_string(),
        }
    }

    /// The value of a text that [`show`](Self::show) gave.
    pub fn parse(&self, text: &str) -> Option<u64> {
        match self {
            Self::AdaptiveRx | Self::AdaptiveTx | Self::Feature(_) => match text {
                "on" => Some(1),
                "off" => Some(0),
                _ => None,
            },
            Self::Udp4Hash | Self::Udp6Hash if text == "none" => Some(0),
            Self::Udp4Hash | Self::Udp6Hash => text.chars().try_fold(0, |bits, letter| {
                Some(bits | HASH.iter().find(|(l, _)| *l == letter)?.1)
            }),
            _ => text.parse().ok(),
        }
    }

    fn range(&self) -> (u64, u64) {
        match self {
            Self::Feature(_) => (0, 1),
            Self::Sysctl(_) => (0, 1 << 30),
            fixed => FIXED.iter().find(|(key, ..)| key == fixed).map_or((0, 0), |f| (f.2, f.3)),
        }
    }
}

/// A setting that a profile wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// Which.
    pub key: Key,
    /// Its value; `None` = as many as there are processors.
    pub value: Option<u64>,
    /// Why.
    pub why: String,
}

impl Want {
    /// The value as text.
    pub fn show(&self) -> String {
        self.value.map_or_else(|| "cores".to_owned(), |value| self.key.show(value))
    }
}

impl NicSettings {
    /// As a list; the order is the one in which they are to be made.
    fn wants(&self) -> Result<Vec<Want>, String> {
        let mut wants = Vec::new();
        let mut add = |key, value: Option<u64>, why: &str| {
            wants.push(Want { key, value, why: why.to_owned() });
        };
        if let Some(Setting { value, why }) = &self.channels {
            let number = match value {
                Channels::Number(number) => Some(*number),
                Channels::By(ChannelsBy::Cores) => None,
            };
            add(Key::Channels, number, why);
        }
        for (key, setting) in [
            (Key::RxRing, &self.rx_ring),
            (Key::TxRing, &self.tx_ring),
            (Key::RxUsecs, &self.rx_usecs),
            (Key::TxUsecs, &self.tx_usecs),
            (Key::RxFrames, &self.rx_frames),
            (Key::TxFrames, &self.tx_frames),
            (Key::GroFlushTimeout, &self.gro_flush_timeout_ns),
            (Key::NapiDeferHardIrqs, &self.napi_defer_hard_irqs),
            (Key::Mtu, &self.mtu),
        ] {
            if let Some(Setting { value, why }) = setting {
                add(key, Some(*value), why);
            }
        }
        for (key, setting) in
            [(Key::AdaptiveRx, &self.adaptive_rx), (Key::AdaptiveTx, &self.adaptive_tx)]
        {
            if let Some(Setting { value, why }) = setting {
                add(key, Some((*value).into()), why);
            }
        }
        for (key, setting) in [(Key::Udp4Hash, &self.udp4_hash), (Key::Udp6Hash, &self.udp6_hash)] {
            if let Some(Setting { value, why }) = setting {
                let bits = key.parse(value).filter(|bits| *bits != 0);
                let bits =
                    bits.ok_or_else(|| format!("{key}: \"{value}\" is no hash; one is sdfn"))?;
                add(key, Some(bits), why);
            }
        }
        for (name, Setting { value, why }) in &self.features {
            add(Key::Feature(name.clone()), Some((*value).into()), why);
        }
        for (name, Setting { value, why }) in &self.sysctls {
            add(format!("sysctl.{name}").parse()?, Some(*value), why);
        }
        wants.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(wants)
    }
}

impl NicProfile {
    /// Values in range, and a reason for each.
    pub(super) fn check(&self) -> Result<(), String> {
        for (part, settings) in
            [("both", &self.both), ("latency", &self.latency), ("throughput", &self.throughput)]
        {
            let advice = settings.irq_affinity.iter().map(|s| ("irq_affinity".to_owned(), &s.why));
            let wants = settings.wants().map_err(|error| format!("nic.{part}: {error}"))?;
            for want in &wants {
                let (least, most) = want.key.range();
                if want.value.is_some_and(|v| !(least..=most).contains(&v)) {
                    let (key, value) = (&want.key, want.show());
                    return Err(format!("nic.{part}: {key} = {value} is not {least} to {most}"));
                }
            }
            let all = wants.iter().map(|want| (want.key.to_string(), &want.why)).chain(advice);
            for (name, why) in all {
                if why.trim().len() < MIN_REASON {
                    return Err(format!("nic.{part}: {name} has no reason"));
                }
            }
        }
        Ok(())
    }

    /// What is wanted for a purpose, in the order in which it is to be set.
    pub fn wants(&self, purpose: Purpose) -> Vec<Want> {
        // Both were checked when the file was read.
        let mut wants = self.part(purpose).wants().unwrap_or_default();
        for want in self.both.wants().unwrap_or_default() {
            if wants.iter().all(|other| other.key != want.key) {
                wants.push(want);
            }
        }
        wants.sort_by(|a, b| a.key.cmp(&b.key));
        wants
    }

    /// Advice on interrupts.
    pub fn irq_affinity(&self, purpose: Purpose) -> Option<&Setting<IrqAffinity>> {
        self.part(purpose).irq_affinity.as_ref().or(self.both.irq_affinity.as_ref())
    }

    fn part(&self, purpose: Purpose) -> &NicSettings {
        match purpose {
            Purpose::Latency => &self.latency,
            Purpose::Throughput => &self.throughput,
        }
    }
}
