//! `trunkline send`.

mod find;
mod handler;
mod reader;
mod trust;

use crate::address::{DISCOVER, Target};
use crate::cli::{DEFAULT_PORT, SendArgs};
use crate::engine::{self, Post};
use crate::exit::{Exit, Failure};
use crate::interrupt;
use crate::keygen;
use crate::transfer::names::{self, printable};
use crate::transfer::report::{Done, Report, Verb};
use handler::{Command, Plan, SendHandler, Update};
use serde_json::json;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};
use trunkline::{ConnectConfig, ConnectionConfig, EngineConfig, Reason, Trust};

/// Threads that read and hash.
const READERS: usize = 2;
/// Bytes of one file that may be on their way.
const FILE_BUFFER: u64 = 8 << 20;
/// Bytes of all files that may be on their way.
const SEND_BUFFER: u64 = 64 << 20;
/// Messages on these connections are small.
const MAX_MESSAGE: usize = 64 << 10;
/// How long a closed connection answers late packets.
const FIN_WAIT: trunkline::Duration = trunkline::Duration::from_secs(1);
/// Between two looks at the progress.
const TICK: Duration = Duration::from_millis(100);
/// How long the other side gets to learn of an interruption.
const FAREWELL: Duration = Duration::from_millis(500);

/// The subcommand.
pub fn run(args: &SendArgs) -> Exit {
    let mut report = Report::new(args.common.json, Verb::Send);
    let outcome = send(args, &mut report);
    if let Err(failure) = &outcome {
        report.error(failure);
    }
    let exit = outcome.unwrap_or_else(|failure| failure.exit);
    report.summary(exit);
    exit
}

fn send(args: &SendArgs, report: &mut Report) -> Result<Exit, Failure> {
    let plans = plan(&args.files)?;
    let (target, remotes) = receiver(args)?;
    let (identity, made) = keygen::load_or_make(args.common.identity.as_deref())?;
    if made {
        report.say(&format!(
            "made a new key for this user; its fingerprint is {}",
            identity.peer_id()
        ));
    }
    let addresses: Vec<String> = remotes.iter().map(ToString::to_string).collect();
    let line = format!("connecting to {}", addresses.join(", "));
    report.notice("connecting", json!({"addresses": addresses}), &line);
    let connection = connection_config(args.common.timeout);
    let connect = ConnectConfig {
        server_name: server_name(&target),
        remotes,
        identity: Some(identity.clone()),
        connection: Some(connection.clone()),
        link: args.common.link.connect(),
        ..ConnectConfig::new(([127, 0, 0, 1], 1).into(), Trust::DangerousAny)
    };
    let config =
        EngineConfig { connection, identity: Some(identity), ..engine::config(args.common.driver) };
    let trust = trust::decide(args, &target, &connect, &config, report)?;
    // Not of the first look at the receiver, which may have been another connection.
    let config = EngineConfig {
        capture: args.common.capture.config(),
        stats_file: args.common.stats.path(),
        ..config
    };
    transfer(ConnectConfig { trust, ..connect }, config, plans, report)
}

/// Who is meant, and where it can be reached.
fn receiver(args: &SendArgs) -> Result<(Target, Vec<SocketAddr>), Failure> {
    if let Some(name) = args.to.strip_prefix(DISCOVER) {
        return find::find(name, &args.pin);
    }
    let target = Target::parse(&args.to, DEFAULT_PORT)?;
    let remotes = target.resolve()?;
    Ok((target, remotes))
}

/// Checks the files before anything is sent.
fn plan(paths: &[PathBuf]) -> Result<Vec<(PathBuf, String, u64)>, Failure> {
    paths.iter().map(|path| plan_one(path)).collect()
}

fn plan_one(path: &Path) -> Result<(PathBuf, String, u64), Failure> {
    let shown = printable(&path.to_string_lossy());
    let bad = |why: &str| Failure::local(format!("{shown}: {why}"));
    let name = path.file_name().ok_or_else(|| bad("has no file name"))?;
    let name = name.to_str().ok_or_else(|| bad("the name is not UTF-8"))?;
    names::check(name).map_err(bad)?;
    let meta = std::fs::metadata(path).map_err(|e| bad(&e.to_string()))?;
    if !meta.is_file() {
        return Err(bad("is not a regular file"));
    }
    Ok((path.to_owned(), name.to_owned(), meta.len()))
}

/// Certificates name hosts, not address literals with zones.
fn server_name(target: &Target) -> String {
    let no_name = target.host.contains('%') || target.host.starts_with(DISCOVER);
    if no_name { "trunkline".to_owned() } else { target.host.clone() }
}

/// Settings of the one connection.
fn connection_config(timeout: Duration) -> ConnectionConfig {
    let timeout: trunkline::Duration = timeout.into();
    let defaults = ConnectionConfig::default();
    ConnectionConfig {
        connected_timeout: timeout,
        initial_timeout: timeout.min(defaults.initial_timeout),
        fin_wait_timeout: FIN_WAIT,
        keep_alive: timeout.div(3).min(defaults.keep_alive),
        max_message: MAX_MESSAGE,
        channel_send_buffer: FILE_BUFFER,
        send_buffer: SEND_BUFFER,
        ..defaults
    }
}

fn transfer(
    connect: ConnectConfig,
    config: EngineConfig,
    plans: Vec<(PathBuf, String, u64)>,
    report: &mut Report,
) -> Result<Exit, Failure> {
    let (updates, events) = mpsc::channel();
    let post = Post::<SendHandler>::new();
    let jobs = {
        let post = post.clone();
        reader::start(READERS, move |read| post.deliver(Command::Read(read)))
    }
    .map_err(|e| Failure::local(format!("cannot start a thread: {e}")))?;
    report.expect(plans.len(), plans.iter().map(|(.., bytes)| bytes).sum());
    let names: Vec<String> = plans.iter().map(|(_, name, _)| name.clone()).collect();
    let dones: Vec<Done> = plans.iter().map(|_| Done::default()).collect();
    let plans = plans
        .into_iter()
        .zip(&dones)
        .map(|((path, name, _), done)| Plan { path, name, done: Arc::clone(done) })
        .collect();
    let interrupted = Arc::new(AtomicBool::new(false));
    post.start(config, SendHandler::new(connect, plans, jobs, updates))?;
    {
        let (post, interrupted) = (post.clone(), Arc::clone(&interrupted));
        interrupt::watch(move || {
            interrupted.store(true, Ordering::Relaxed);
            post.deliver(Command::Interrupt);
        });
    }
    let mut session = Session { report, names, dones, remote: String::new(), lost: None };
    session.follow(&events, &interrupted);
    let lost = session.lost.take();
    post.shutdown(FAREWELL);
    if interrupted.load(Ordering::Relaxed) {
        return Ok(Exit::Interrupted);
    }
    match lost {
        Some(failure) => Err(failure),
        None if report.failed_files() > 0 => Ok(Exit::Failed),
        None => Ok(Exit::Done),
    }
}

/// Shows what the handler tells.
struct Session<'a> {
    report: &'a mut Report,
    names: Vec<String>,
    dones: Vec<Done>,
    remote: String,
    lost: Option<Failure>,
}

impl Session<'_> {
    /// Until the connection is gone.
    fn follow(&mut self, events: &mpsc::Receiver<Update>, interrupted: &AtomicBool) {
        let mut give_up: Option<Instant> = None;
        loop {
            match events.recv_timeout(TICK) {
                Ok(Update::Gone) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(update) => self.show(update),
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.report.tick();
            if interrupted.load(Ordering::Relaxed) {
                let at = give_up.get_or_insert_with(|| Instant::now() + FAREWELL);
                if Instant::now() >= *at {
                    return;
                }
            }
        }
    }

    fn show(&mut self, update: Update) {
        match update {
            Update::Connected { remote, peer } => {
                self.remote = remote.to_string();
                let fingerprint = peer.map(|p| p.to_string());
                let line = match &fingerprint {
                    Some(f) => format!("connected to {remote}, fingerprint {f}"),
                    None => format!("connected to {remote}"),
                };
                let fields = json!({"address": self.remote, "fingerprint": fingerprint});
                self.report.notice("connected", fields, &line);
            }
            Update::Started { index, bytes } => {
                let done = Arc::clone(&self.dones[index]);
                self.report.started(index as u64, &self.names[index], bytes, done);
            }
            Update::Stored { index, digest } => self.report.finished(index as u64, &digest, None),
            Update::Failed { index, code, reason } => {
                self.report.failed(index as u64, &self.names[index], code, &reason);
            }
            Update::Closed { reason, by_peer, complete } => {
                let words = printable(&reason.to_string());
                let fields = json!({
                    "address": self.remote, "reason": words, "code": reason.reason.0,
                    "clean": complete,
                });
                if complete {
                    return;
                }
                let line = match (by_peer, self.remote.is_empty()) {
                    (true, _) => format!("the receiver closed the connection: {words}"),
                    (false, true) => format!("no connection: {words}"),
                    (false, false) => format!("the connection was lost: {words}"),
                };
                self.report.notice("closed", fields, &line);
                let exit = match reason.reason {
                    Reason::BAD_CERTIFICATE
                    | Reason::AUTHENTICATION
                    | Reason(trust::NOT_ALLOWED) => Exit::Trust,
                    _ => Exit::Connection,
                };
                self.lost = Some(Failure::new(exit, line));
            }
            Update::Gone => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn settings_are_valid() {
        for seconds in [1, 10, 3600] {
            connection_config(Duration::from_secs(seconds)).validate().unwrap();
        }
    }

    #[test]
    fn only_regular_files_with_usable_names() {
        let dir = Scratch::new();
        let file = dir.path().join("a");
        std::fs::write(&file, b"xyz").unwrap();
        let planned = plan(std::slice::from_ref(&file)).unwrap();
        assert_eq!(planned, [(file, "a".to_owned(), 3)]);
        for bad in [dir.path().to_owned(), dir.path().join("missing"), PathBuf::from("..")] {
            assert_eq!(plan(&[bad]).unwrap_err().exit, Exit::Failed);
        }
    }
}
