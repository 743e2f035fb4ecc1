//! `trunkline recv`.

mod handler;
mod store;
mod writer;

use crate::announce::{self, Announced};
use crate::cli::RecvArgs;
use crate::engine::{self, Post};
use crate::exit::{Exit, Failure};
use crate::interrupt;
use crate::keygen;
use crate::transfer::SERVICE;
use crate::transfer::names::printable;
use crate::transfer::report::{Report, Verb, count_files};
use handler::{Command, Policy, RecvHandler, Update};
use serde_json::json;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};
use store::Inbox;
use trunkline::discovery::Mode;
use trunkline::{ClientAuth, ConnectionConfig, EngineConfig, ListenConfig, Trust};
use writer::Writers;

/// How long a closed connection answers late packets.
const FIN_WAIT: trunkline::Duration = trunkline::Duration::from_secs(1);
/// Between two looks at the progress.
const TICK: Duration = Duration::from_millis(100);
/// How long the other side gets to learn that we end.
const FAREWELL: Duration = Duration::from_millis(500);
/// Credit of one file at first, and at most, in bytes.
const FILE_WINDOW: (u64, u64) = (1 << 20, 8 << 20);
/// Connections at once.
const MAX_SENDERS: u32 = 256;

/// The subcommand.
pub fn run(args: &RecvArgs) -> Exit {
    let mut report = Report::new(args.common.json, Verb::Receive);
    let outcome = receive(args, &mut report);
    if let Err(failure) = &outcome {
        report.error(failure);
    }
    let exit = outcome.unwrap_or_else(|failure| failure.exit);
    report.summary(exit);
    exit
}

fn receive(args: &RecvArgs, report: &mut Report) -> Result<Exit, Failure> {
    let dir = &args.dir;
    let (inbox, removed) = Inbox::open(dir, args.rename, args.sync)
        .map_err(|e| Failure::local(format!("cannot use {}: {e}", dir.display())))?;
    if removed > 0 {
        report.say(&format!(
            "removed {removed} partial files of a receiver that did not end properly"
        ));
    }
    let (identity, made) = keygen::load_or_make(args.common.identity.as_deref())?;
    if made {
        report.say("made a new key for this user");
    }
    let fingerprint = identity.peer_id();
    let (updates, events) = mpsc::channel();
    let post = Post::<RecvHandler>::new();
    let writers = {
        let post = post.clone();
        let threads = std::thread::available_parallelism().map_or(1, usize::from).clamp(1, 4);
        Writers::start(threads, &inbox, move |w| post.deliver(Command::Written(w)))
    }
    .map_err(|e| Failure::local(format!("cannot start a thread: {e}")))?;
    let policy =
        Policy { allow: args.allow.clone(), max_bytes: args.max_bytes, rename: args.rename };
    let config = EngineConfig {
        connection: connection_config(args.common.timeout),
        max_connections: MAX_SENDERS,
        stats_file: args.common.stats.path(),
        capture: args.common.capture.config(),
        ..engine::config(args.common.driver)
    };
    let running = post.start(config, RecvHandler::new(policy, writers.queues(), updates))?;
    let listener = running
        .listen(&ListenConfig {
            client_auth: ClientAuth::Optional(Trust::DangerousAny),
            links: args.common.link.links(),
            ..ListenConfig::new(args.listen, identity)
        })
        .map_err(|e| Failure::connection(format!("cannot listen at {}: {e}", args.listen)))?;
    {
        let post = post.clone();
        interrupt::watch(move || post.deliver(Command::Interrupt));
    }
    let (address, driver) = (listener.local_addr, running.driver_name());
    let what = Announced {
        service: SERVICE,
        peer: fingerprint,
        listen: address,
        links: args.common.link.links(),
        mode: if args.allow.is_empty() { Mode::Open } else { Mode::Known },
    };
    let announcing = announce::start(&args.announce, &what)?;
    let folder = inbox.dir().display();
    report.result(
        "listening",
        json!({
            "address": address.to_string(), "fingerprint": fingerprint.to_string(),
            "dir": folder.to_string(), "driver": driver,
            "announced": announcing.as_ref().map(|a| &a.name),
        }),
        &format!(
            "fingerprint {fingerprint}\nlistening on {address} for files into {folder} ({driver})"
        ),
    );
    if let Some(announcing) = &announcing {
        let reach = if announcing.local_only {
            "to this machine only; --listen 0.0.0.0:7470 (IPv4) or [::]:7470 (IPv6) opens it to the network"
        } else {
            "to the local network"
        };
        report.say(&format!("announced as {} {reach}", announcing.name));
    }
    let exit = Session { args, report, post: &post }.follow(&events);
    drop(announcing);
    // The peers learn of it first, then partial files are removed.
    post.shutdown(FAREWELL);
    writers.join();
    Ok(exit)
}

/// Settings of every connection: credit comes back when bytes are written.
fn connection_config(timeout: Duration) -> ConnectionConfig {
    let timeout: trunkline::Duration = timeout.into();
    let defaults = ConnectionConfig::default();
    ConnectionConfig {
        connected_timeout: timeout,
        initial_timeout: timeout.min(defaults.initial_timeout),
        fin_wait_timeout: FIN_WAIT,
        keep_alive: timeout.div(3).min(defaults.keep_alive),
        channel_window: FILE_WINDOW.0,
        channel_window_max: FILE_WINDOW.1,
        manual_credit: true,
        ..defaults
    }
}

/// Shows what the handler tells and decides when to end.
struct Session<'a> {
    args: &'a RecvArgs,
    report: &'a mut Report,
    post: &'a Post<RecvHandler>,
}

impl Session<'_> {
    fn follow(&mut self, events: &mpsc::Receiver<Update>) -> Exit {
        let mut ending = None;
        let mut ticked = Instant::now();
        loop {
            match events.recv_timeout(TICK) {
                Ok(Update::Interrupted { broken }) => {
                    return match broken {
                        0 => ending.unwrap_or_else(|| self.verdict()),
                        _ => Exit::Interrupted,
                    };
                }
                Ok(Update::Drained) => {
                    if let Some(exit) = ending {
                        return exit;
                    }
                }
                Ok(update) => {
                    if let Some(exit) = self.show(update)
                        && ending.is_none()
                    {
                        ending = Some(exit);
                        self.post.deliver(Command::Drain);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Exit::Connection,
            }
            if ticked.elapsed() >= TICK {
                ticked = Instant::now();
                self.report.tick();
            }
        }
    }

    /// Whether all files so far were stored.
    fn verdict(&self) -> Exit {
        if self.report.failed_files() > 0 { Exit::Failed } else { Exit::Done }
    }

    /// `Some` when this is the end.
    fn show(&mut self, update: Update) -> Option<Exit> {
        match update {
            Update::Connected { remote, peer } => {
                let fingerprint = peer.map(|p| p.to_string());
                let who = fingerprint.as_deref().unwrap_or("none");
                let line = format!("connection from {remote}, fingerprint {who}");
                let fields = json!({"address": remote.to_string(), "fingerprint": fingerprint});
                self.report.notice("connected", fields, &line);
            }
            Update::Refused { remote, peer, reason } => {
                let fingerprint = peer.map(|p| p.to_string());
                let who = fingerprint.as_deref().unwrap_or("none");
                let line = format!("refused {remote}, fingerprint {who}: {reason}");
                let address = remote.to_string();
                let fields =
                    json!({"address": address, "fingerprint": fingerprint, "reason": reason});
                self.report.notice("refused", fields, &line);
            }
            Update::Started { id, name, bytes, done } => {
                self.report.started(id, &name, bytes, done);
            }
            Update::Stored { id, digest, path } => self.report.finished(id, &digest, Some(&path)),
            Update::Failed { id, name, code, reason } => {
                self.report.failed(id, &name, code, &reason);
            }
            Update::Ended { remote, reason, by_peer, offered, broken } => {
                let words = printable(&reason.to_string());
                let clean = by_peer && broken == 0;
                let line = match (by_peer, broken) {
                    (true, 0) => format!("{remote} has gone"),
                    (true, n) => {
                        let files = count_files(n as u64);
                        format!("{remote} closed the connection within {files}: {words}")
                    }
                    (false, n) => {
                        format!("{remote} was lost within {}: {words}", count_files(n as u64))
                    }
                };
                let fields = json!({
                    "address": remote.to_string(), "reason": words, "code": reason.reason.0,
                    "clean": clean,
                });
                // Those that only looked are not worth a line.
                if offered > 0 || !clean {
                    self.report.notice("closed", fields, &line);
                }
                if broken > 0 && !self.args.keep {
                    return Some(Exit::Connection);
                }
                if offered > 0 && self.args.once {
                    return Some(self.verdict());
                }
            }
            Update::Drained | Update::Interrupted { .. } => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_valid() {
        for seconds in [1, 10, 3600] {
            connection_config(Duration::from_secs(seconds)).validate().unwrap();
        }
    }
}
