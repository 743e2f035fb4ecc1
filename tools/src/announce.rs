//! How a command that listens lets itself be found: its options, and the thread that answers.

use crate::exit::Failure;
use crate::transfer::names::printable;
use clap::Args;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use trunkline::PeerId;
use trunkline::discovery::{
    Announcement, Announcer, AnnouncerConfig, Answers, DeviceId, DeviceType, HostConfig, Links,
    Mode,
};
use trunkline::limits;

/// Between two looks whether to end.
const TICK: Duration = Duration::from_millis(200);

/// Options of commands that listen.
#[derive(Clone, Debug, Args)]
pub struct AnnounceArgs {
    /// Tell the local network that this is here, under NAME: `trunkline discover` shows it
    /// (docs/presence.md) [default name: that of the machine]
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true,
          default_missing_value = "")]
    pub announce: Option<String>,
    /// An id by which those who know it find this device; @FILE reads it from a file. Nobody can
    /// read it from the network.
    #[arg(long, value_name = "ID", value_parser = device_id, requires = "announce")]
    pub announce_id: Option<DeviceId>,
    /// Answer only those who know the id.
    #[arg(long, requires = "announce_id")]
    pub announce_hidden: bool,
    /// What kind of device to announce: desktop, laptop, server, phone, tablet, console,
    /// television, headset, embedded.
    #[arg(long, value_name = "TYPE", default_value = "unspecified", requires = "announce",
          value_parser = device_type)]
    pub announce_type: DeviceType,
}

/// What the announcement is about.
pub struct Announced {
    /// Name of the service.
    pub service: &'static str,
    /// Who the listener proves to be.
    pub peer: PeerId,
    /// Where it listens.
    pub listen: SocketAddr,
    /// What it takes connections over.
    pub links: trunkline::Links,
    /// Whom it lets in.
    pub mode: Mode,
}

/// Answers until it is dropped; then those who asked are told that it is over.
pub struct Announcing {
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// The name that is announced.
    pub name: String,
    /// Nobody outside this machine can connect.
    pub local_only: bool,
}

/// Links as an announcement names them.
const fn announced(links: trunkline::Links) -> Links {
    match (links.datagram, links.any_stream()) {
        (true, true) => Links::UDP.and(Links::TLS),
        (false, true) => Links::TLS,
        _ => Links::UDP,
    }
}

/// Starts to announce, if that was asked for.
pub fn start(args: &AnnounceArgs, what: &Announced) -> Result<Option<Announcing>, Failure> {
    let Some(name) = &args.announce else { return Ok(None) };
    let name = if name.is_empty() { machine_name() } else { name.clone() };
    let announcement = Announcement {
        mode: what.mode,
        device_type: args.announce_type,
        id: args.announce_id.clone(),
        links: announced(what.links),
        ..Announcement::new(&name, what.service, what.peer, what.listen.port())
    };
    announcement.validate().map_err(|e| Failure::usage(format!("--announce: {e}")))?;
    let answers =
        if args.announce_hidden { Answers::ThoseWhoKnowTheId } else { Answers::Everybody };
    let config = AnnouncerConfig {
        host: HostConfig { answers, ..HostConfig::default() },
        ..AnnouncerConfig::new(announcement, what.listen.ip())
    };
    let local_only = config.is_local_only();
    let mut announcer = Announcer::start(config)
        .map_err(|e| Failure::connection(format!("cannot announce: {e}")))?;
    let end = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&end);
    let answer = move || {
        while !ended.load(Ordering::Relaxed) {
            if let Err(e) = announcer.poll(TICK) {
                tracing::error!("the announcement has ended: {e}");
                return;
            }
        }
    };
    let thread = thread::Builder::new()
        .name("announce".into())
        .spawn(answer)
        .map_err(|e| Failure::local(format!("cannot start a thread: {e}")))?;
    Ok(Some(Announcing { end, thread: Some(thread), name: printable(&name), local_only }))
}

impl Drop for Announcing {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The machine's name in a form that can be announced.
fn machine_name() -> String {
    let name = gethostname::gethostname();
    let mut name: String =
        name.to_string_lossy().chars().filter(|c| !c.is_control()).collect::<String>();
    while name.len() > limits::MAX_PRESENCE_NAME {
        name.pop();
    }
    if name.trim().is_empty() { "unnamed".to_owned() } else { name }
}

/// A device id as typed, or `@FILE`, whose last line break does not count.
pub fn device_id(text: &str) -> Result<DeviceId, String> {
    let id = match text.strip_prefix('@') {
        Some(file) => read_id(Path::new(file)).map_err(|e| format!("cannot read {file}: {e}"))?,
        None => text.as_bytes().to_vec(),
    };
    DeviceId::new(&id).map_err(|e| e.to_string())
}

fn read_id(path: &Path) -> io::Result<Vec<u8>> {
    use io::Read as _;
    let mut id = Vec::new();
    std::fs::File::open(path)?.take(1024).read_to_end(&mut id)?;
    while matches!(id.last(), Some(b'\n' | b'\r')) {
        id.pop();
    }
    Ok(id)
}

fn device_type(text: &str) -> Result<DeviceType, String> {
    text.parse().map_err(|e: trunkline::ApiError| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn the_name_of_the_machine_can_be_announced() {
        let announcement = Announcement::new(machine_name(), "x", PeerId([0; 32]), 1);
        announcement.validate().unwrap();
    }

    #[test]
    fn ids_come_from_files_too() {
        let dir = Scratch::new();
        let file = dir.path().join("id");
        std::fs::write(&file, "secret\n").unwrap();
        assert_eq!(read_id(&file).unwrap(), b"secret");
        assert!(device_id(&format!("@{}", file.display())).is_ok());
        assert!(device_id("@/no/such/file").unwrap_err().contains("/no/such/file"));
        assert!(device_id("").is_err());
        std::fs::write(&file, "x".repeat(65)).unwrap();
        assert!(device_id(&format!("@{}", file.display())).is_err());
    }
}
