//! Where figures were taken: machine, kernel, versions.

use serde::Serialize;
use std::collections::BTreeMap;
use std::fs;

/// Facts about the machine and the program.
#[derive(Clone, Debug, Serialize)]
pub struct Host {
    /// As the kernel calls itself.
    pub kernel: String,
    /// Model of the processors.
    pub cpu: String,
    /// How many the machine has.
    pub cpus: usize,
    /// Bytes of memory.
    pub memory: u64,
    /// Default congestion control of TCP.
    pub tcp_congestion: String,
    /// Versions of the packages that are compared.
    pub versions: BTreeMap<String, String>,
}

fn first_line(path: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").trim().to_owned()
}

fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

impl Host {
    /// This machine, and the versions of `packages`.
    pub fn this(packages: &[&str]) -> Self {
        let memory = field("/proc/meminfo", "MemTotal")
            .and_then(|value| value.split_ascii_whitespace().next()?.parse::<u64>().ok());
        let version = |name: &&str| Some(((*name).to_owned(), locked_version(name)?));
        Self {
            kernel: first_line("/proc/sys/kernel/osrelease"),
            cpu: field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".to_owned()),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory: memory.unwrap_or(0) * 1024,
            tcp_congestion: first_line("/proc/sys/net/ipv4/tcp_congestion_control"),
            versions: packages.iter().filter_map(version).collect(),
        }
    }

    /// One paragraph.
    pub fn line(&self) -> String {
        let versions: Vec<String> =
            self.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
        format!(
            "{} × {}, {:.1} GiB, Linux {}, TCP {}; {}",
            self.cpus,
            self.cpu,
            self.memory as f64 / f64::from(1 << 30),
            self.kernel,
            self.tcp_congestion,
            versions.join(", ")
        )
    }
}

/// The version that the workspace's lock file has of a package; the newest of several.
pub fn locked_version(package: &str) -> Option<String> {
    let lock = include_str!("../../../Cargo.lock");
    let wanted = format!("name = \"{package}\"");
    let mut lines = lock.lines();
    let mut found = None;
    while let Some(line) = lines.next() {
        if line == wanted {
            found = lines.next()?.strip_prefix("version = \"")?.strip_suffix('"');
        }
    }
    found.map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_from_the_lock_file() {
        assert_eq!(locked_version("trunkline").as_deref(), Some(env!("CARGO_PKG_VERSION")));
        assert!(locked_version("quinn").is_some_and(|version| version.starts_with("0.")));
        assert_eq!(locked_version("no-such-package"), None);
    }

    #[test]
    fn this_machine_is_described() {
        let host = Host::this(&["ring"]);
        assert!(host.cpus >= 1 && host.line().contains("ring"), "{}", host.line());
    }
}
