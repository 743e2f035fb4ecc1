//! Hardware profiles: settings of an engine that suit a family of network interfaces, each with its
//! reason. Files of `hw-profiles/` are part of the library; others are read from disk.
//!
//! A profile states what is wanted. [`Profile::apply`] fits it to what this machine has, and
//! [`NicProfile::wants`] is what it says about the interface itself.

use super::machine::Machine;
use super::nic::NicProfile;
use crate::config::EngineConfig;
use serde::Deserialize;
use std::io::Read as _;

/// The profiles that are part of the library.
const BUILT_IN: [(&str, &str); 15] = [
    ("azure", include_str!("../../../hw-profiles/azure.toml")),
    ("bnxt", include_str!("../../../hw-profiles/bnxt.toml")),
    ("ena", include_str!("../../../hw-profiles/ena.toml")),
    ("generic", include_str!("../../../hw-profiles/generic.toml")),
    ("gve", include_str!("../../../hw-profiles/gve.toml")),
    ("i40e", include_str!("../../../hw-profiles/i40e.toml")),
    ("ice", include_str!("../../../hw-profiles/ice.toml")),
    ("igb", include_str!("../../../hw-profiles/igb.toml")),
    ("igc", include_str!("../../../hw-profiles/igc.toml")),
    ("ixgbe", include_str!("../../../hw-profiles/ixgbe.toml")),
    ("loopback", include_str!("../../../hw-profiles/loopback.toml")),
    ("mlx5", include_str!("../../../hw-profiles/mlx5.toml")),
    ("r8169", include_str!("../../../hw-profiles/r8169.toml")),
    ("veth", include_str!("../../../hw-profiles/veth.toml")),
    ("virtio", include_str!("../../../hw-profiles/virtio.toml")),
];
/// Shortest text that can be a reason.
pub(super) const MIN_REASON: usize = 10;
/// Longest file that is read.
const MAX_FILE: u64 = 1 << 20;

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// No profile has this name, and no file this path.
    #[error("no profile \"{name}\"; there are {known}, or a file's path")]
    Unknown {
        /// What was asked for.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    File {
        /// Its path.
        path: String,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// It is no profile: which line, which field.
    #[error("{path}: {error}")]
    Malformed {
        /// Its path.
        path: String,
        /// What is wrong.
        error: String,
    },
}

/// A value with the reason for it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Setting<T> {
    /// The value.
    pub value: T,
    /// Why this one.
    pub why: String,
}

/// How many shards.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(untagged)]
pub enum Shards {
    /// So many.
    Number(usize),
    /// As many as something that this machine has.
    By(ShardsBy),
}

/// What the number of shards follows.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum ShardsBy {
    /// Processors that the process may use.
    Cores,
    /// Receive queues of the interface, at most as many as there are processors.
    Queues,
}

/// On which processors shards run that get one each.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Placement {
    /// In the order of the system.
    Any,
    /// Those of the interface's NUMA node first, and of these, those that none of its interrupts
    /// come to, on cores of their own ([`Machine::near`]).
    Near,
}

/// What a profile says about an engine; what it leaves out stays as it is.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct EngineSettings {
    /// Shards.
    pub shards: Option<Setting<Shards>>,
    /// Whether each shard gets a processor of its own.
    pub pin: Option<Setting<bool>>,
    /// Which processors those are.
    pub placement: Option<Setting<Placement>>,
    /// As [`EngineConfig::socket_buffer_bytes`].
    pub socket_buffer_bytes: Option<Setting<usize>>,
    /// As [`EngineConfig::rx_buffers`].
    pub rx_buffers: Option<Setting<usize>>,
    /// As [`EngineConfig::tx_buffers`].
    pub tx_buffers: Option<Setting<usize>>,
    /// UDP payload that packets start with, as of
    /// [`ConnectionConfig`](crate::ConnectionConfig::initial_packet).
    pub initial_packet: Option<Setting<usize>>,
    /// UDP payload up to which the size is searched.
    pub max_packet: Option<Setting<usize>>,
    /// As [`ConnectionConfig::pacing_burst`](crate::ConnectionConfig::pacing_burst).
    pub pacing_burst: Option<Setting<u32>>,
    /// As [`EngineConfig::gso`].
    pub gso: Option<Setting<bool>>,
    /// As [`EngineConfig::gso_segments`].
    pub gso_segments: Option<Setting<usize>>,
    /// As [`EngineConfig::gro`].
    pub gro: Option<Setting<bool>>,
    /// As [`EngineConfig::busy_poll`], in microseconds.
    pub busy_poll_us: Option<Setting<u64>>,
}

/// Settings that suit a family of network interfaces.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// What it is for, in a few words.
    pub description: String,
    /// Drivers of the family, as the kernel calls them.
    pub drivers: Vec<String>,
    /// What to know about these devices that is no setting.
    #[serde(default)]
    pub gotchas: Vec<String>,
    /// Counters of the device that tell of loss; `*` stands for any characters.
    #[serde(default)]
    pub counters: Vec<String>,
    /// Settings of an engine.
    #[serde(default)]
    pub engine: EngineSettings,
    /// Settings of the interface.
    #[serde(default)]
    pub nic: NicProfile,
}

impl Profile {
    /// The profiles that are part of the library.
    pub fn built_in() -> impl Iterator<Item = Self> {
        BUILT_IN.iter().filter_map(|(name, text)| Self::parse(name, text).ok())
    }

    /// Of a file's text; `path` is for errors.
    ///
    /// # Errors
    /// [`ProfileError::Malformed`] names line and field.
    pub fn parse(path: &str, text: &str) -> Result<Self, ProfileError> {
        let malformed = |error: String| ProfileError::Malformed { path: path.to_owned(), error };
        let profile: Self = toml::from_str(text).map_err(|e| malformed(e.to_string()))?;
        if profile.name.is_empty() {
            return Err(malformed("name must not be empty".into()));
        }
        let mut config = EngineConfig::default();
        for applied in profile.apply(&mut config, &Machine::default()) {
            if applied.why.trim().len() < MIN_REASON {
                return Err(malformed(format!("{} has no reason", applied.setting)));
            }
        }
        profile.nic.check().map_err(malformed)?;
        config.validate().map_err(|error| malformed(error.to_string()))?;
        Ok(profile)
    }

    /// The profile of a name, of a file (anything with a slash or a dot in it), or, for `auto`, the
    /// one for the machine's first interface.
    ///
    /// # Errors
    /// There is none, or its file is unusable.
    pub fn find(which: &str, machine: &Machine) -> Result<Self, ProfileError> {
        if which.contains(['/', '.', '\\']) {
            let failed = |source| ProfileError::File { path: which.to_owned(), source };
            let malformed = |error: &str| ProfileError::Malformed {
                path: which.to_owned(),
                error: error.to_owned(),
            };
            if !std::fs::metadata(which).map_err(failed)?.is_file() {
                return Err(malformed("is not a file"));
            }
            let mut text = String::new();
            let file = std::fs::File::open(which).map_err(failed)?;
            let read = file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(failed)?;
            if read as u64 > MAX_FILE {
                return Err(malformed("is larger than 1 MiB"));
            }
            return Self::parse(which, &text);
        }
        let driver = machine.nics.first().map_or("", |nic| nic.driver.as_str());
        let mut all = Self::built_in();
        let found = if which == "auto" {
            all.find(|p| p.drivers.iter().any(|d| d == driver))
                .or_else(|| Self::built_in().find(|p| p.name == "generic"))
        } else {
            all.find(|p| p.name == which)
        };
        found.ok_or_else(|| {
            let names: Vec<String> = Self::built_in().map(|p| p.name).collect();
            ProfileError::Unknown { name: which.to_owned(), known: names.join(", ") }
        })
    }
}

#[cfg(test)]
mod tests;
