//! `trunkline chat`: two people at two terminals, brought together by an event source
//! (`docs/chat.md`).

mod code;
mod handler;
mod lines;

use crate::address::Target;
use crate::cli::{Driver, EVENT_SOURCE_PORT, LinkChoice};
use crate::engine::Post;
use crate::exit::{Exit, Failure};
use crate::token::{KeyFile, lifetime, sign, unix_s};
use crate::transfer::names::escaped;
use crate::{engine, interrupt, print};
use clap::Args;
use code::{Code, Draft};
use handler::{ChatHandler, Command, Show};
use serde_json::{Value, json};
use std::io::{self, BufRead as _, IsTerminal as _, Read as _};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use trunkline::rendezvous::{
    AccessToken, AppId, ClientPattern, Grant, PairingState, RoleSet, connection_config,
};
use trunkline::{ConnectConfig, ConnectionConfig, EngineConfig, PeerId, Trust, limits};

/// The application that tokens of a code are for.
const APP: &str = "chat";
/// How long the last words may take.
const FAREWELL: Duration = Duration::from_secs(2);
/// Longest line that is read from standard input.
const MAX_INPUT: u64 = 64 << 10;

pub const HELP: &str = "\
Examples:
  trunkline chat --create --source example.org:7472 --pin 3f0c…91 --key k1=k1.key
  trunkline chat --pair tc1.oQ3v…KQDw           what the first one prints, for the second one
  trunkline chat --create --print --source example.org:7472 --pin 3f0c…91 --key k1=k1.key

Both may also start with --pair and the same code; who comes first waits for the other. A code is
as good as a password: send it over a way that nobody else reads. Lines are sealed end to end with a
secret of the code, which the event source never learns. /quit or the end of input ends it.

Exit codes: 0 ended by its user, 2 usage, 3 the event source does not let us in, or somebody else
used the code, 4 no network";

/// Options of `chat`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("how").required(true).args(["pair", "create"]))]
pub struct ChatArgs {
    /// The code that the other one has, too.
    #[arg(long, value_name = "CODE")]
    pub pair: Option<Code>,
    /// Make a code, print it, and wait for the other one.
    #[arg(long, requires_all = ["source", "pin"])]
    pub create: bool,
    /// With --create: only print the code.
    #[arg(long, requires = "create")]
    pub print: bool,
    /// With --create: the event source, HOST or HOST:PORT.
    #[arg(long, value_name = "ADDRESS", requires = "create")]
    pub source: Option<String>,
    /// With --create: the fingerprint that the event source prints.
    #[arg(long, value_name = "FINGERPRINT", requires = "create")]
    pub pin: Option<PeerId>,
    /// With --create: a key of the event source, to mint a token that is good for this code only.
    #[arg(long, value_name = "NAME=FILE", requires = "create", conflicts_with = "token")]
    pub key: Option<KeyFile>,
    /// With --create: a token for application `chat` that allows any client id and both roles. It
    /// becomes part of the code, so the other one gets it.
    #[arg(long, value_name = "TOKEN", requires = "create")]
    pub token: Option<AccessToken>,
    /// With --key: how long the code is good for: 90s, 15m, 12h, 30d.
    #[arg(long, value_name = "TIME", default_value = "1d", value_parser = lifetime)]
    pub ttl: Duration,
    /// How the event source is reached.
    #[arg(long, value_enum, default_value_t = LinkChoice::Auto)]
    pub link: LinkChoice,
    /// Which driver carries the packets.
    #[arg(long, value_enum, default_value_t = Driver::Auto)]
    pub driver: Driver,
    #[command(flatten)]
    pub stats: engine::StatsFileArg,
    /// One JSON object a line on standard output (docs/chat.md).
    #[arg(long)]
    pub json: bool,
    /// What is written for protocol analysers.
    #[command(flatten)]
    pub capture: crate::capture::CaptureArgs,
}

/// The subcommand.
pub fn run(args: &ChatArgs) -> Result<Exit, Failure> {
    let screen = Screen { json: args.json, terminal: io::stdout().is_terminal() };
    let code = if let Some(code) = &args.pair {
        code.clone()
    } else {
        let code = create(args)?;
        let text = code.to_string();
        screen.print("code", json!({"code": text}), &text)?;
        if args.print {
            return Ok(Exit::Done);
        }
        code
    };
    let connection = ConnectionConfig {
        // Whoever quits does not wait for one who may be gone.
        fin_wait_timeout: trunkline::Duration::from_secs(1),
        ..connection_config()
    };
    let stats_file = args.stats.path();
    let capture = args.capture.config();
    let config = EngineConfig { connection, stats_file, capture, ..engine::config(args.driver) };
    let (show, shown) = mpsc::channel();
    let post = Post::<ChatHandler>::new();
    let source = ConnectConfig {
        remotes: code.source.resolve()?,
        link: args.link.connect(),
        ..ConnectConfig::new(([127, 0, 0, 1], 1).into(), Trust::Pins(vec![code.fingerprint]))
    };
    post.start(config, ChatHandler::new(&code, source, show)?)?;
    watch_input(&post)?;
    {
        let post = post.clone();
        interrupt::watch(move || post.deliver(Command::Quit));
    }
    let outcome = screen.follow(&shown);
    post.shutdown(FAREWELL);
    outcome
}

fn create(args: &ChatArgs) -> Result<Code, Failure> {
    let missing = |what: &str| Failure::usage(format!("--create needs {what}"));
    let source = args.source.as_deref().ok_or_else(|| missing("--source"))?;
    let source = Target::parse(source, EVENT_SOURCE_PORT)?;
    let pin = args.pin.ok_or_else(|| missing("--pin"))?;
    let draft = Draft::new()?;
    let token = match (&args.key, &args.token) {
        (Some(key), _) => {
            let bad = |e: String| Failure::usage(e);
            let grant = Grant {
                app: AppId::new(APP).map_err(|e| bad(e.to_string()))?,
                clients: ClientPattern::new(&format!("{}.*", draft.room()))
                    .map_err(|e| bad(e.to_string()))?,
                roles: RoleSet::ALL,
                expires_s: unix_s() + args.ttl.as_secs(),
            };
            sign(key, &grant)?
        }
        (None, Some(token)) => token.clone(),
        (None, None) => return Err(missing("--key or --token")),
    };
    Ok(draft.finish(source, pin, token))
}

/// Reads lines on a thread of its own, which ends with the process.
fn watch_input(post: &Post<ChatHandler>) -> Result<(), Failure> {
    let post = post.clone();
    let read = move || {
        let mut input = io::stdin().lock();
        let mut line = Vec::new();
        loop {
            line.clear();
            let mut part = input.by_ref().take(MAX_INPUT);
            if !matches!(part.read_until(b'\n', &mut line), Ok(1..)) {
                break;
            }
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end_matches(['\r', '\n']);
            match text.trim() {
                "" => {}
                "/quit" => break,
                _ => post.deliver(Command::Say(text.to_owned())),
            }
        }
        post.deliver(Command::Quit);
    };
    let spawned = thread::Builder::new().name("input".into()).spawn(read);
    spawned.map(drop).map_err(|e| Failure::local(format!("no thread for the input: {e}")))
}

/// What is printed, for people or for programs.
struct Screen {
    json: bool,
    terminal: bool,
}

impl Screen {
    /// Shows what happens until it is over.
    fn follow(&self, shown: &mpsc::Receiver<Show>) -> Result<Exit, Failure> {
        for show in shown {
            match show {
                Show::State(state) => self.state(state)?,
                Show::Route(route) => {
                    let name = route.name();
                    self.print("route", json!({"route": name}), &format!("* {}", route.words()))?;
                }
                Show::Link(status) => {
                    self.note("link", json!({"status": format!("{status:?}")}))?;
                }
                Show::Arrived => self.print("arrived", json!({}), "* the other one is there")?,
                Show::Heard(text) => {
                    let safe = escaped(text.chars());
                    self.print("line", json!({"text": text}), &format!("> {safe}"))?;
                }
                Show::Said(number) => self.note("said", json!({"number": number}))?,
                Show::Delivered(number) => self.note("delivered", json!({"number": number}))?,
                Show::Full => {
                    self.print("full", json!({}), "* too much waits; this line was not taken")?;
                }
                Show::Ended(None) => {
                    self.print("ended", json!({"exit": 0}), "* ended")?;
                    return Ok(Exit::Done);
                }
                Show::Ended(Some(failure)) => {
                    let fields = json!({"exit": failure.exit as u8, "reason": failure.text});
                    self.note("ended", fields)?;
                    return Err(failure);
                }
            }
        }
        Err(Failure::connection("the engine has stopped"))
    }

    fn state(&self, state: PairingState) -> Result<(), Failure> {
        let words = match state {
            PairingState::Passive => return Ok(()),
            PairingState::ReadyToConnect => "no connection to the event source; trying again",
            PairingState::Connecting => "connecting to the event source",
            PairingState::ReadyToPair => "at the event source",
            PairingState::Searching => "searching for the other one",
            PairingState::Interacting => "paired with the other one",
        };
        self.print("state", json!({"state": state.name()}), &format!("* {words}"))
    }

    /// For programs only.
    fn note(&self, event: &str, fields: Value) -> Result<(), Failure> {
        if self.json { self.print(event, fields, "") } else { Ok(()) }
    }

    fn print(&self, event: &str, fields: Value, text: &str) -> Result<(), Failure> {
        // What is being typed stays with the terminal; its line is drawn over.
        let over = if self.terminal { "\r\x1b[K" } else { "" };
        print::event(self.json, event, fields, &format!("{over}{text}"))
    }
}

const _: () = assert!(lines::MAX_LINE + 25 + code::SEAL_OVERHEAD <= limits::MAX_EVENT_BODY);
