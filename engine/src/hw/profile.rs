//! Hardware profiles: settings of an engine that suit a family of network interfaces, each with its
//! reason. Files of `hw-profiles/` are part of the library; others are read from disk.
//!
//! A profile states what is wanted. [`Profile::apply`] fits it to what this machine has, and tells
//! what it did.

use crate::config::{EngineConfig, MAX_SHARDS, Pinning};
use serde::Deserialize;
use std::fmt;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

/// The profiles that are part of the library.
const BUILT_IN: [(&str, &str); 4] = [
    ("generic", include_str!("../../../hw-profiles/generic.toml")),
    ("loopback", include_str!("../../../hw-profiles/loopback.toml")),
    ("veth", include_str!("../../../hw-profiles/veth.toml")),
    ("virtio", include_str!("../../../hw-profiles/virtio.toml")),
];
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

/// What a profile says about an engine; what it leaves out stays as it is.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct EngineSettings {
    /// Shards.
    pub shards: Option<Setting<Shards>>,
    /// Whether each shard gets a processor of its own.
    pub pin: Option<Setting<bool>>,
    /// As [`EngineConfig::socket_buffer_bytes`].
    pub socket_buffer_bytes: Option<Setting<usize>>,
    /// As [`EngineConfig::rx_buffers`].
    pub rx_buffers: Option<Setting<usize>>,
    /// As [`EngineConfig::tx_buffers`].
    pub tx_buffers: Option<Setting<usize>>,
    /// As [`EngineConfig::gso`].
    pub gso: Option<Setting<bool>>,
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
    /// Settings of an engine.
    #[serde(default)]
    pub engine: EngineSettings,
}

/// A network interface of this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nic {
    /// Its name.
    pub name: String,
    /// Its driver, as the kernel calls it; `lo` and `veth` for those without a device.
    pub driver: String,
    /// Whether it is up.
    pub up: bool,
    /// Receive queues.
    pub rx_queues: usize,
}

/// What a profile is fitted to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Processors that the process may use.
    pub cores: Vec<usize>,
    /// Network interfaces, those with the default route first.
    pub nics: Vec<Nic>,
}

/// One setting that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Its name.
    pub setting: &'static str,
    /// The value that was set.
    pub value: String,
    /// Why.
    pub why: String,
}

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}: {}", self.setting, self.value, self.why)
    }
}

impl Machine {
    /// This one. Where there is no `/sys`, it has no interfaces.
    pub fn this() -> Self {
        let route = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
        Self::read(Path::new("/sys"), &route, super::cores())
    }

    /// From a tree like `/sys`, a text like `/proc/net/route`, and processors.
    pub fn read(sys: &Path, route: &str, cores: Vec<usize>) -> Self {
        let net = sys.join("class/net");
        let names = std::fs::read_dir(&net).into_iter().flatten().flatten();
        let mut nics: Vec<Nic> = names
            .filter_map(|entry| entry.file_name().into_string().ok())
            .map(|name| Nic::read(&net.join(&name), name))
            .collect();
        let is_default = |nic: &Nic| {
            let mut lines = route.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
            lines.any(|line| line.len() > 1 && line[0] == nic.name && line[1] == "00000000")
        };
        nics.sort_by_key(|nic| (!is_default(nic), !nic.up, nic.driver == "lo", nic.name.clone()));
        Self { cores, nics }
    }
}

impl Nic {
    fn read(at: &Path, name: String) -> Self {
        let text = |file: &str| std::fs::read_to_string(at.join(file)).unwrap_or_default();
        let driver = std::fs::canonicalize(at.join("device/driver")).ok();
        let driver = driver.and_then(|path| Some(path.file_name()?.to_str()?.to_owned()));
        let kind = text("uevent");
        let kind = kind.lines().find_map(|line| line.strip_prefix("DEVTYPE="));
        let is_loopback = text("type").trim() == "772";
        let virtual_kind = if is_loopback { "lo" } else { kind.unwrap_or("veth") };
        let queues = std::fs::read_dir(at.join("queues")).into_iter().flatten().flatten();
        let is_rx = |e: &std::fs::DirEntry| e.file_name().to_string_lossy().starts_with("rx-");
        let state = text("operstate");
        Self {
            name,
            driver: driver.unwrap_or_else(|| virtual_kind.to_owned()),
            up: matches!(state.trim(), "up" | "unknown"),
            rx_queues: queues.filter(is_rx).count(),
        }
    }
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
            if applied.why.len() < 10 {
                return Err(malformed(format!("{} has no reason", applied.setting)));
            }
        }
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

    /// Changes `config` as the profile says, fitted to the machine; what was set, in order.
    pub fn apply(&self, config: &mut EngineConfig, machine: &Machine) -> Vec<Applied> {
        let mut done = Vec::new();
        let mut tell = |setting, value: String, why: &str| {
            done.push(Applied { setting, value, why: why.to_owned() });
        };
        let cores = machine.cores.len().max(1);
        let settings = &self.engine;
        if let Some(Setting { value, why }) = &settings.shards {
            let queues = machine.nics.first().map_or(0, |nic| nic.rx_queues).max(1);
            let wanted = match value {
                Shards::Number(number) => *number,
                Shards::By(ShardsBy::Cores) => cores,
                Shards::By(ShardsBy::Queues) => queues,
            };
            config.shards = wanted.min(cores).clamp(1, MAX_SHARDS);
            tell("shards", config.shards.to_string(), why);
        }
        if let Some(Setting { value, why }) = &settings.pin {
            let pinned = *value && machine.cores.len() >= config.shards;
            config.pin = if pinned { Pinning::Cores(machine.cores.clone()) } else { Pinning::None };
            tell("pin", pinned.to_string(), why);
        }
        let numbers: [(&str, &Option<Setting<usize>>, &mut usize); 3] = [
            ("socket_buffer_bytes", &settings.socket_buffer_bytes, &mut config.socket_buffer_bytes),
            ("rx_buffers", &settings.rx_buffers, &mut config.rx_buffers),
            ("tx_buffers", &settings.tx_buffers, &mut config.tx_buffers),
        ];
        for (setting, from, to) in numbers {
            if let Some(Setting { value, why }) = from {
                *to = *value;
                tell(setting, value.to_string(), why);
            }
        }
        for (setting, from, to) in
            [("gso", &settings.gso, &mut config.gso), ("gro", &settings.gro, &mut config.gro)]
        {
            if let Some(Setting { value, why }) = from {
                *to = *value;
                tell(setting, value.to_string(), why);
            }
        }
        if let Some(Setting { value, why }) = &settings.busy_poll_us {
            config.busy_poll = Some(Duration::from_micros(*value));
            tell("busy_poll_us", value.to_string(), why);
        }
        done
    }
}

impl EngineConfig {
    /// Takes over the settings of a hardware profile: `auto` (for the interface with the default
    /// route), the name of one that is part of the library, or the path of a file. Change single
    /// settings afterwards. What was set is told, with the reasons.
    ///
    /// # Errors
    /// There is no such profile, or its file is unusable.
    pub fn load_profile(&mut self, which: &str) -> Result<Vec<Applied>, ProfileError> {
        let machine = Machine::this();
        let profile = Profile::find(which, &machine)?;
        tracing::info!(profile = profile.name, "hardware profile");
        Ok(profile.apply(self, &machine))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn machine(cores: usize, nics: &[(&str, usize)]) -> Machine {
        let nic = |(driver, rx_queues): &(&str, usize)| Nic {
            name: "eth0".into(),
            driver: (*driver).to_owned(),
            up: true,
            rx_queues: *rx_queues,
        };
        Machine { cores: (0..cores).collect(), nics: nics.iter().map(nic).collect() }
    }

    #[test]
    fn every_profile_of_the_library_is_usable_and_has_reasons() {
        assert_eq!(Profile::built_in().count(), BUILT_IN.len(), "all of them parse");
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../hw-profiles");
        assert_eq!(fs::read_dir(folder).unwrap().count(), BUILT_IN.len(), "none is forgotten");
        for (file, profile) in BUILT_IN.iter().zip(Profile::built_in()) {
            assert_eq!(profile.name, file.0);
            for cores in [0, 1, 2, 300] {
                let mut config = EngineConfig::default();
                let told = profile.apply(&mut config, &machine(cores, &[("x", 500)]));
                config.validate().unwrap();
                assert!(!told.is_empty() && config.shards <= cores.max(1));
            }
        }
    }

    #[test]
    fn auto_takes_the_profile_of_the_first_interface() {
        let name = |m: &Machine| Profile::find("auto", m).unwrap().name;
        assert_eq!(name(&machine(4, &[("virtio_net", 2), ("lo", 1)])), "virtio");
        assert_eq!(name(&machine(4, &[("lo", 1)])), "loopback");
        assert_eq!(name(&machine(4, &[("something_new", 8)])), "generic");
        assert_eq!(name(&machine(4, &[])), "generic");
        let mut config = EngineConfig::default();
        let virtual_machine = machine(4, &[("virtio_net", 2)]);
        let told =
            Profile::find("virtio", &virtual_machine).unwrap().apply(&mut config, &virtual_machine);
        assert_eq!((config.shards, config.rx_buffers), (2, 512));
        assert!(told.iter().any(|a| a.setting == "shards" && a.to_string().contains("queues")));
    }

    #[test]
    fn files_are_read_and_mistakes_are_named() {
        let path = std::env::temp_dir().join(format!("profile-{}.toml", std::process::id()));
        let file = path.to_str().unwrap();
        let load = |text: &str| {
            fs::write(&path, text).unwrap();
            Profile::find(file, &machine(8, &[]))
        };
        let head = "name = \"mine\"\ndescription = \"\"\ndrivers = []\n";
        let good = format!(
            "{head}[engine.pin]\nvalue = true\nwhy = \"because I say so\"\n\
             [engine.busy_poll_us]\nvalue = 50\nwhy = \"because I say so\"\n"
        );
        let mut config = EngineConfig { shards: 3, ..EngineConfig::default() };
        load(&good).unwrap().apply(&mut config, &machine(8, &[]));
        assert_eq!(config.pin, Pinning::Cores((0..8).collect()));
        assert_eq!(config.busy_poll, Some(Duration::from_micros(50)));
        for (text, word) in [
            (format!("{head}[engine.pins]\nvalue = true\nwhy = \"because I say so\"\n"), "pins"),
            (format!("{head}[engine.gso]\nvalue = 3\nwhy = \"because I say so\"\n"), "boolean"),
            (format!("{head}[engine.gso]\nvalue = true\nwhy = \"\"\n"), "gso has no reason"),
            (
                format!("{head}[engine.rx_buffers]\nvalue = 1\nwhy = \"because I say so\"\n"),
                "rx_buffers",
            ),
            ("drivers = []".to_owned(), "name"),
        ] {
            let error = load(&text).unwrap_err().to_string();
            assert!(error.contains(word) && error.contains(file), "{error}");
        }
        fs::remove_file(&path).unwrap();
        assert!(matches!(Profile::find(file, &machine(1, &[])), Err(ProfileError::File { .. })));
        let unknown = Profile::find("nonsense", &machine(1, &[])).unwrap_err().to_string();
        assert!(unknown.contains("nonsense") && unknown.contains("loopback"), "{unknown}");
    }

    #[test]
    #[cfg(unix)]
    fn interfaces_are_read_from_a_tree_like_sys() {
        let root = std::env::temp_dir().join(format!("sys-{}", std::process::id()));
        let net = root.join("class/net");
        let nic = |name: &str, files: &[(&str, &str)], queues: usize| {
            for (file, text) in files {
                fs::create_dir_all(net.join(name)).unwrap();
                fs::write(net.join(name).join(file), text).unwrap();
            }
            for n in 0..queues {
                fs::create_dir_all(net.join(name).join(format!("queues/rx-{n}"))).unwrap();
            }
        };
        nic("lo", &[("type", "772\n"), ("operstate", "unknown\n")], 1);
        nic("eth0", &[("type", "1\n"), ("operstate", "down\n")], 2);
        nic("ens5", &[("type", "1\n"), ("operstate", "up\n")], 4);
        let driver = root.join("bus/pci/drivers/ena");
        fs::create_dir_all(&driver).unwrap();
        fs::create_dir_all(net.join("ens5/device")).unwrap();
        std::os::unix::fs::symlink(&driver, net.join("ens5/device/driver")).unwrap();
        let route = "Iface\tDestination\tGateway\nens5\t00000000\t0101010A\n";
        let read = Machine::read(&root, route, vec![0, 1]);
        let names: Vec<_> = read.nics.iter().map(|n| (&*n.name, &*n.driver, n.up)).collect();
        assert_eq!(names, [("ens5", "ena", true), ("lo", "lo", true), ("eth0", "veth", false)]);
        assert_eq!(read.nics[0].rx_queues, 4);
        fs::remove_dir_all(&root).unwrap();
        // Whatever this machine is, it has a profile.
        let mut config = EngineConfig::default();
        assert!(!config.load_profile("auto").unwrap().is_empty());
        config.validate().unwrap();
    }
}
