//! Many clients on one engine, each with a connection of its own, and what a process costs.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use trunkline::rendezvous::{
    AccessToken, ClientId, Notice, PairingConfig, PairingRole, PairingState, Session,
    SessionConfig, connection_config,
};
use trunkline::{
    Channel, ChannelEnd, ChannelKind, CloseReason, Conn, ConnectConfig, Context, Engine,
    EngineConfig, Handler, Status,
};

/// Clients whose connections are made at the same time.
const OPENING: usize = 64;

#[derive(Default)]
struct Counts {
    interacting: AtomicUsize,
    lost: AtomicUsize,
}

/// Pairs of clients that meet through one event source.
pub struct Crowd {
    _engine: Engine<Clients>,
    counts: Arc<Counts>,
    clients: usize,
}

impl Crowd {
    pub fn start(source: &ConnectConfig, token: &str, pairs: usize) -> Self {
        let counts = Arc::new(Counts::default());
        let token = AccessToken::new(token).unwrap();
        let config = EngineConfig { connection: connection_config(), ..EngineConfig::default() };
        let engine = Engine::start(config, |_| Clients {
            sessions: Vec::new(),
            by_conn: HashMap::new(),
            source: source.clone(),
            token: token.clone(),
            wanted: 2 * pairs,
            counts: counts.clone(),
        })
        .unwrap();
        Self { _engine: engine, counts, clients: 2 * pairs }
    }

    /// Waits until all of them interact.
    pub fn wait(&self, patience: Duration) -> Duration {
        let start = Instant::now();
        loop {
            let interacting = self.counts.interacting.load(Ordering::Relaxed);
            if interacting == self.clients {
                return start.elapsed();
            }
            assert!(start.elapsed() < patience, "{interacting} of {} interact", self.clients);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// How often one stopped interacting.
    pub fn lost(&self) -> usize {
        self.counts.lost.load(Ordering::Relaxed)
    }
}

struct Clients {
    sessions: Vec<Session>,
    by_conn: HashMap<Conn, usize>,
    source: ConnectConfig,
    token: AccessToken,
    wanted: usize,
    counts: Arc<Counts>,
}

impl Clients {
    /// Client 2n is the controller of client 2n + 1.
    fn add(&mut self, cx: &mut Context<'_>) {
        let at = self.sessions.len();
        if at == self.wanted {
            return;
        }
        let role =
            if at.is_multiple_of(2) { PairingRole::Controller } else { PairingRole::Responder };
        let config = SessionConfig {
            source: self.source.clone(),
            role,
            pairing: PairingConfig::default(),
            timer: at as u64,
            relay: false,
        };
        let mut session = Session::new(config).unwrap();
        let id = |n: usize| ClientId::new(&format!("client-{n}")).unwrap();
        session.call(cx, |p, now| p.assign_client_id(now, Some(id(at))).unwrap());
        session.call(cx, |p, now| p.assign_access_token(now, Some(self.token.clone())));
        if role == PairingRole::Controller {
            session.call(cx, |p, now| p.assign_partner(now, Some(id(at + 1))).unwrap());
        }
        session.call(cx, |p, now| p.set_active(now, true));
        self.sessions.push(session);
        self.after(at);
    }

    fn after(&mut self, at: usize) {
        let session = &mut self.sessions[at];
        if let Some(conn) = session.conn() {
            self.by_conn.insert(conn, at);
        }
        while let Some(notice) = session.poll_notice() {
            if let Notice::State { old, new } = notice {
                if new == PairingState::Interacting {
                    self.counts.interacting.fetch_add(1, Ordering::Relaxed);
                } else if old == PairingState::Interacting {
                    self.counts.interacting.fetch_sub(1, Ordering::Relaxed);
                    self.counts.lost.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    fn with(&mut self, conn: Conn, f: impl FnOnce(&mut Session) -> bool) {
        if let Some(at) = self.by_conn.get(&conn).copied() {
            f(&mut self.sessions[at]);
            self.after(at);
        }
    }
}

impl Handler for Clients {
    type Command = ();

    fn on_start(&mut self, cx: &mut Context<'_>) {
        for _ in 0..OPENING {
            self.add(cx);
        }
    }

    fn on_status(
        &mut self,
        cx: &mut Context<'_>,
        conn: Conn,
        _: Status,
        new: Status,
        reason: Option<&CloseReason>,
    ) {
        self.with(conn, |session| session.on_status(cx, conn, new, reason));
    }

    fn on_channel_ready(&mut self, cx: &mut Context<'_>, channel: Channel) {
        self.with(channel.conn(), |session| session.on_channel_ready(cx, channel));
        self.add(cx);
    }

    fn on_channel_closed(&mut self, cx: &mut Context<'_>, channel: Channel, end: &ChannelEnd) {
        self.with(channel.conn(), |session| session.on_channel_closed(cx, channel, end));
    }

    fn on_eof(&mut self, cx: &mut Context<'_>, channel: Channel) {
        self.with(channel.conn(), |session| session.on_eof(cx, channel));
    }

    fn on_message(&mut self, cx: &mut Context<'_>, channel: Channel, _: ChannelKind, m: &[u8]) {
        self.with(channel.conn(), |session| session.on_message(cx, channel, m));
    }

    fn on_writable(&mut self, cx: &mut Context<'_>, channel: Channel) {
        self.with(channel.conn(), |session| session.on_writable(cx, channel));
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, token: u64) {
        let at = token as usize;
        self.sessions[at].on_timer(cx, token);
        self.after(at);
    }
}

/// What a process has used.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    pub rss_bytes: u64,
    pub cpu: Duration,
}

/// Zero where the system does not say.
pub fn usage(pid: u32) -> Usage {
    let read = |name| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let status = read("status");
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = rss.and_then(|rss| rss.trim().trim_end_matches(" kB").parse::<u64>().ok());
    // The name stands in brackets and may contain anything; utime and stime are 11 and 12 fields
    // behind it, in hundredths of a second.
    let stat = read("stat");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
    Usage {
        rss_bytes: kib.unwrap_or(0) * 1024,
        cpu: Duration::from_millis((ticks(12) + ticks(13)) * 10),
    }
}
