//! Whether the receiver is the right one, as with ssh: pinned, known, or asked for once.
//!
//! The connection that carries files is always pinned (except with `--trust-any`). What a receiver
//! shows that is not known yet is found out by a connection of its own, which carries nothing.

use crate::address::Target;
use crate::cli::SendArgs;
use crate::engine::Post;
use crate::exit::{Exit, Failure};
use crate::home;
use crate::peers::KnownPeers;
use crate::transfer::names::printable;
use crate::transfer::report::Report;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::sync::mpsc::{self, Sender};
use std::time::Duration;
use trunkline::{
    CloseReason, CloseReport, Conn, ConnectConfig, Context, EngineConfig, Handler, PeerId, Reason,
    Status, Trust,
};

/// Close code with which a receiver turns away a sender that is not on its list.
pub const NOT_ALLOWED: u32 = Reason::APP_MIN + 11;

/// How to trust the receiver; asks the user if that is what it takes.
pub fn decide(
    args: &SendArgs,
    target: &Target,
    connect: &ConnectConfig,
    config: &EngineConfig,
    report: &Report,
) -> Result<Trust, Failure> {
    if args.trust_any {
        report.say("warning: the receiver is not checked (--trust-any)");
        return Ok(Trust::DangerousAny);
    }
    if !args.pin.is_empty() {
        return Ok(Trust::Pins(args.pin.clone()));
    }
    let mut peers = KnownPeers::load(home::known_peers_path()?)?;
    let address = target.key();
    let known = peers.lookup(&address);
    if known.is_empty() && !can_ask() {
        return Err(Failure::new(
            Exit::Trust,
            format!(
                "{address} is not known and there is no terminal to ask on; \
                 use --pin FINGERPRINT (recv prints it), or --trust-any"
            ),
        ));
    }
    let shown = shown_by(connect, config)?;
    if known.contains(&shown) {
        return Ok(Trust::Pins(vec![shown]));
    }
    if let Some(expected) = known.first() {
        return Err(Failure::new(
            Exit::Trust,
            format!(
                "the key of {address} has CHANGED: somebody may be in between, or the receiver \
                 has a new key. Known: {expected}, shown: {shown}. If the new key is right, \
                 remove the line of {address} from {}",
                peers.path().display()
            ),
        ));
    }
    ask(&address, shown)?;
    if let Err(e) = peers.remember(&address, shown) {
        report.say(&format!("warning: cannot write {}: {e}", peers.path().display()));
    } else {
        report.say(&format!("remembered {address} in {}", peers.path().display()));
    }
    Ok(Trust::Pins(vec![shown]))
}

fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

fn ask(address: &str, shown: PeerId) -> Result<(), Failure> {
    let mut err = io::stderr().lock();
    let _ = write!(
        err,
        "{address} is not known yet. Its fingerprint is\n  {shown}\n\
         Is that the one the receiver printed? (yes/no) "
    );
    let _ = err.flush();
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    match (read, answer.trim().to_ascii_lowercase().as_str()) {
        (Ok(_), "yes" | "y") => Ok(()),
        _ => Err(Failure::new(Exit::Trust, format!("{address} was not accepted"))),
    }
}

/// The fingerprint that the receiver proves to have.
fn shown_by(connect: &ConnectConfig, config: &EngineConfig) -> Result<PeerId, Failure> {
    let (tell, told) = mpsc::channel();
    let post = Post::<Probe>::new();
    let connect = ConnectConfig { trust: Trust::DangerousAny, ..connect.clone() };
    post.start(config.clone(), Probe { connect, tell, shown: None })?;
    let result = told
        .recv()
        .unwrap_or_else(|_| Err(Failure::connection("the engine ended before it could connect")));
    post.shutdown(Duration::from_millis(300));
    result
}

struct Probe {
    connect: ConnectConfig,
    tell: Sender<Result<PeerId, Failure>>,
    shown: Option<PeerId>,
}

impl Handler for Probe {
    type Command = ();

    fn on_start(&mut self, cx: &mut Context<'_>) {
        if let Err(e) = cx.connect(&self.connect) {
            let _ = self.tell.send(Err(Failure::connection(e.to_string())));
        }
    }

    fn on_status(
        &mut self,
        cx: &mut Context<'_>,
        conn: Conn,
        _old: Status,
        new: Status,
        reason: Option<&CloseReason>,
    ) {
        self.shown = self.shown.or_else(|| cx.info(conn).and_then(|info| info.peer));
        let result = match (new, reason) {
            (Status::Connected, _) => match self.shown {
                Some(peer) => Ok(peer),
                None => Err(Failure::new(Exit::Trust, "the receiver shows no key")),
            },
            (Status::ClosedByPeer | Status::ProblemDetectedLocally, reason) => {
                let words = reason.map(|r| printable(&r.to_string())).unwrap_or_default();
                let exit = match reason.map(|r| r.reason) {
                    Some(Reason::AUTHENTICATION | Reason(NOT_ALLOWED)) => Exit::Trust,
                    _ => Exit::Connection,
                };
                Err(Failure::new(exit, format!("no connection: {words}")))
            }
            _ => return,
        };
        let _ = self.tell.send(result);
        let _ = cx.close(conn, Reason::APP.0, "only asked for the key", None);
    }

    fn on_dead(&mut self, _cx: &mut Context<'_>, _conn: Conn, report: &CloseReport) {
        // Heard only if nothing was told before.
        let words = printable(&report.reason.to_string());
        let _ = self.tell.send(Err(Failure::connection(format!("no connection: {words}"))));
    }
}
