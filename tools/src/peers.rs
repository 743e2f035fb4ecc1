//! The known-peers file: which fingerprint belongs to which address, as the user once accepted it.
//!
//! A line that cannot be read makes the file unusable: skipping it could turn a changed key into
//! an unknown one.

use crate::exit::{Exit, Failure};
use crate::home;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use trunkline::PeerId;

/// The file, read once.
#[derive(Debug)]
pub struct KnownPeers {
    path: PathBuf,
    entries: Vec<(String, PeerId)>,
}

impl KnownPeers {
    /// Reads `path`; a missing file is an empty one.
    pub fn load(path: PathBuf) -> Result<Self, Failure> {
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            Err(e) => {
                let text = format!("cannot read {}: {e}", path.display());
                return Err(Failure::new(Exit::Trust, text));
            }
        };
        let mut entries = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let entry = parse_line(line).map_err(|why| {
                let at = format!("{}, line {}", path.display(), number + 1);
                Failure::new(Exit::Trust, format!("{at}: {why}; remove or correct the line"))
            })?;
            entries.push(entry);
        }
        Ok(Self { path, entries })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The fingerprints known for `host:port`.
    pub fn lookup(&self, address: &str) -> Vec<PeerId> {
        self.entries.iter().filter(|(a, _)| a == address).map(|(_, id)| *id).collect()
    }

    /// Adds one line at the end of the file.
    pub fn remember(&mut self, address: &str, id: PeerId) -> io::Result<()> {
        home::make_folder_of(&self.path)?;
        let mut options = fs::OpenOptions::new();
        options.create(true).append(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt as _;
            options.mode(0o600);
        }
        // One write in append mode: two senders at once leave two whole lines. The line break in
        // front guards against a last line that an editor left without one.
        let needs_break = fs::read(&self.path).is_ok_and(|t| !t.is_empty() && !t.ends_with(b"\n"));
        let line = format!("{}{address} {id}\n", if needs_break { "\n" } else { "" });
        options.open(&self.path)?.write_all(line.as_bytes())?;
        self.entries.push((address.to_owned(), id));
        Ok(())
    }
}

fn parse_line(line: &str) -> Result<(String, PeerId), String> {
    let mut words = line.split_ascii_whitespace();
    let address = words.next().unwrap_or_default().to_ascii_lowercase();
    if !address.contains(':') {
        return Err("does not start with HOST:PORT".to_owned());
    }
    let id = words.next().ok_or("has no fingerprint")?.parse().map_err(|e| format!("{e}"))?;
    Ok((address, id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    fn id(byte: u8) -> PeerId {
        PeerId([byte; 32])
    }

    #[test]
    fn remembers_and_finds() {
        let dir = Scratch::new();
        let path = dir.path().join("home/known_peers");
        let mut peers = KnownPeers::load(path.clone()).unwrap();
        assert!(peers.lookup("host:7470").is_empty());
        peers.remember("host:7470", id(1)).unwrap();
        peers.remember("[::1]:7470", id(2)).unwrap();
        let again = KnownPeers::load(path).unwrap();
        assert_eq!(again.lookup("host:7470"), [id(1)]);
        assert_eq!(again.lookup("[::1]:7470"), [id(2)]);
        assert!(again.lookup("host:7471").is_empty());
    }

    #[test]
    fn comments_and_missing_line_breaks() {
        let dir = Scratch::new();
        let path = dir.path().join("known_peers");
        fs::write(&path, format!("# mine\n\nHost:1 {} office\nb:2 {}", id(1), id(2))).unwrap();
        let mut peers = KnownPeers::load(path.clone()).unwrap();
        assert_eq!(peers.lookup("host:1"), [id(1)]);
        peers.remember("c:3", id(3)).unwrap();
        let again = KnownPeers::load(path).unwrap();
        assert_eq!(again.lookup("b:2"), [id(2)]);
        assert_eq!(again.lookup("c:3"), [id(3)]);
    }

    #[test]
    fn broken_lines_are_errors() {
        let dir = Scratch::new();
        let path = dir.path().join("known_peers");
        for bad in ["host:1", "host:1 abcd", "host abcd", &format!("host:1 {}00", id(1))] {
            fs::write(&path, format!("# first\n{bad}\n")).unwrap();
            let failure = KnownPeers::load(path.clone()).unwrap_err();
            assert_eq!(failure.exit, Exit::Trust);
            assert!(failure.text.contains("line 2"), "{failure}");
        }
    }
}
