//! A client on a thread of its own, for applications without a handler: calls from any thread, and
//! notices in a queue.

use super::session::{Session, SessionConfig};
use crate::config::{ConnectConfig, EngineConfig};
use crate::engine::Engine;
use crate::error::EngineError;
use crate::handle::{Channel, Conn};
use crate::handler::{Context, Handler};
use crossbeam::channel::{Receiver, Sender, bounded};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use trunkline_proto::config::ChannelKind;
use trunkline_proto::error::{ApiError, CloseReason};
use trunkline_proto::event::ChannelEnd;
use trunkline_proto::rendezvous::pairing::{Notice, Pairing, PairingConfig, PairingState, Sent};
use trunkline_proto::rendezvous::token::AccessToken;
use trunkline_proto::rendezvous::{ClientId, PairingRole, Reject};
use trunkline_proto::status::Status;
use trunkline_proto::time::Instant;

/// Notices that wait for the application; more are dropped and counted.
const NOTICES: usize = 4096;
/// Packets that wait for the application; more are dropped.
const PACKETS: usize = 1024;
/// How long a call waits for the client's thread.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// How long the last events may take.
const FAREWELL: Duration = Duration::from_secs(2);
const TIMER: u64 = 1;

/// How to start a [`PairingClient`].
#[derive(Clone, Debug)]
pub struct PairingClientConfig {
    /// Its engine, of which it uses one shard.
    pub engine: EngineConfig,
    /// Where the event source is, and what makes it acceptable.
    pub source: ConnectConfig,
    /// Our part.
    pub role: PairingRole,
    /// Timers and queues.
    pub pairing: PairingConfig,
    /// Whether packets are exchanged with the partner by way of the event source.
    pub relay: bool,
}

impl PairingClientConfig {
    /// For `role` at this event source, everything else by default.
    pub fn new(source: ConnectConfig, role: PairingRole) -> Self {
        let pairing = PairingConfig::default();
        Self { engine: EngineConfig::default(), source, role, pairing, relay: false }
    }
}

type Job = Box<dyn FnOnce(&mut Session, &mut Context<'_>) + Send>;

/// What is called on the client's thread.
pub(crate) struct Call(Job);

/// A client of an event source. It is passive until [`set_active`](Self::set_active). Dropping it
/// ends its connection at once; [`shutdown`](Self::shutdown) says goodbye to the partner first.
#[derive(Debug)]
pub struct PairingClient {
    engine: Engine<ClientHandler>,
    notices: Receiver<Notice>,
    packets: Receiver<Box<[u8]>>,
    missed: Arc<AtomicU64>,
}

impl PairingClient {
    /// Starts the client's thread.
    ///
    /// # Errors
    /// Unusable settings, no driver, no thread.
    pub fn start(config: PairingClientConfig) -> Result<Self, EngineError> {
        let PairingClientConfig { mut engine, source, role, mut pairing, relay } = config;
        engine.shards = 1;
        if pairing.backoff_seed == 0 {
            pairing.backoff_seed = super::random_seed()?;
        }
        let config = SessionConfig { source, role, pairing, timer: TIMER, relay };
        let mut session = Some(Session::new(config)?);
        let (sender, notices) = bounded(NOTICES);
        let (packet_sender, packets) = bounded(PACKETS);
        let missed = Arc::new(AtomicU64::new(0));
        let engine = Engine::start(engine, |_| ClientHandler {
            session: session.take(),
            notices: sender.clone(),
            packets: packet_sender.clone(),
            missed: missed.clone(),
        })?;
        Ok(Self { engine, notices, packets, missed })
    }

    /// As [`Pairing::set_active`].
    ///
    /// # Errors
    /// [`EngineError::Stopped`], or a client's thread that does not answer.
    pub fn set_active(&self, active: bool) -> Result<(), EngineError> {
        self.call(move |pairing, now| pairing.set_active(now, active))
    }

    /// As [`Pairing::assign_client_id`].
    ///
    /// # Errors
    /// As the machine's; otherwise as [`set_active`](Self::set_active).
    pub fn assign_client_id(&self, client: Option<ClientId>) -> Result<(), EngineError> {
        Ok(self.call(move |pairing, now| pairing.assign_client_id(now, client))??)
    }

    /// As [`Pairing::assign_access_token`].
    ///
    /// # Errors
    /// As [`set_active`](Self::set_active).
    pub fn assign_access_token(&self, token: Option<AccessToken>) -> Result<(), EngineError> {
        self.call(move |pairing, now| pairing.assign_access_token(now, token))
    }

    /// As [`Pairing::assign_partner`].
    ///
    /// # Errors
    /// As the machine's; otherwise as [`set_active`](Self::set_active).
    pub fn assign_partner(&self, partner: Option<ClientId>) -> Result<(), EngineError> {
        Ok(self.call(move |pairing, now| pairing.assign_partner(now, partner))??)
    }

    /// As [`Pairing::send`].
    ///
    /// # Errors
    /// As the machine's; otherwise as [`set_active`](Self::set_active).
    pub fn send(&self, subtype: u16, body: &[u8], buffered: bool) -> Result<Sent, EngineError> {
        let body = body.to_vec();
        Ok(self.call(move |pairing, now| pairing.send(now, subtype, &body, buffered))??)
    }

    /// As [`Pairing::send_route`].
    ///
    /// # Errors
    /// As the machine's; otherwise as [`set_active`](Self::set_active).
    pub fn send_route(&self, subtype: u16, body: &[u8]) -> Result<(), EngineError> {
        let body = body.to_vec();
        Ok(self.call(move |pairing, now| pairing.send_route(now, subtype, &body))??)
    }

    /// The state now.
    ///
    /// # Errors
    /// As [`set_active`](Self::set_active).
    pub fn state(&self) -> Result<PairingState, EngineError> {
        self.call(|pairing, _| pairing.state())
    }

    /// The partner, and why it rejected us if it did.
    ///
    /// # Errors
    /// As [`set_active`](Self::set_active).
    pub fn partner(&self) -> Result<Option<(ClientId, Option<Reject>)>, EngineError> {
        self.call(|pairing, _| pairing.partner().cloned().map(|p| (p, pairing.rejected())))
    }

    /// The next notice; waits for at most `timeout`.
    pub fn recv(&self, timeout: Duration) -> Option<Notice> {
        self.notices.recv_timeout(timeout).ok()
    }

    /// As [`Session::send_relayed`].
    ///
    /// # Errors
    /// As the session's; otherwise as [`set_active`](Self::set_active).
    pub fn send_relayed(&self, packet: &[u8]) -> Result<(), EngineError> {
        let packet = packet.to_vec();
        Ok(self.call_session(move |session, cx| session.send_relayed(cx, &packet))??)
    }

    /// The next packet of the partner that came by way of the event source; waits for at most
    /// `timeout`.
    pub fn recv_relayed(&self, timeout: Duration) -> Option<Box<[u8]>> {
        self.packets.recv_timeout(timeout).ok()
    }

    /// Notices that were dropped because the application did not take them.
    pub fn missed_notices(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }

    /// Goes passive, which tells the partner, and ends.
    pub fn shutdown(&self) {
        let _ = self.set_active(false);
        self.engine.shutdown(FAREWELL);
    }

    fn call<R: Send + 'static>(
        &self,
        f: impl FnOnce(&mut Pairing, Instant) -> R + Send + 'static,
    ) -> Result<R, EngineError> {
        self.call_session(move |session, cx| session.call(cx, f))
    }

    fn call_session<R: Send + 'static>(
        &self,
        f: impl FnOnce(&mut Session, &mut Context<'_>) -> R + Send + 'static,
    ) -> Result<R, EngineError> {
        let (reply, answer) = bounded(1);
        let job: Job = Box::new(move |session, cx| {
            let _ = reply.send(f(session, cx));
        });
        let full = || EngineError::Api(ApiError::WouldBlock("the client's mailbox"));
        self.engine.post(0, Call(job)).map_err(|_| full())?;
        answer.recv_timeout(ANSWER_WAIT).map_err(|_| EngineError::Stopped)
    }
}

/// The client's thread.
pub(crate) struct ClientHandler {
    /// Gone once the one shard was started; a second shard is never asked for.
    session: Option<Session>,
    notices: Sender<Notice>,
    packets: Sender<Box<[u8]>>,
    missed: Arc<AtomicU64>,
}

impl ClientHandler {
    fn with<R>(&mut self, f: impl FnOnce(&mut Session) -> R) {
        let Some(session) = &mut self.session else { return };
        f(session);
        while let Some(notice) = session.poll_notice() {
            if self.notices.try_send(notice).is_err() {
                self.missed.fetch_add(1, Ordering::Relaxed);
            }
        }
        while let Some(packet) = session.poll_relayed() {
            let _ = self.packets.try_send(packet);
        }
    }
}

impl Handler for ClientHandler {
    type Command = Call;

    fn on_status(
        &mut self,
        cx: &mut Context<'_>,
        conn: Conn,
        _: Status,
        new: Status,
        reason: Option<&CloseReason>,
    ) {
        self.with(|session| session.on_status(cx, conn, new, reason));
    }

    fn on_channel_ready(&mut self, cx: &mut Context<'_>, channel: Channel) {
        self.with(|session| session.on_channel_ready(cx, channel));
    }

    fn on_channel_closed(&mut self, cx: &mut Context<'_>, channel: Channel, end: &ChannelEnd) {
        self.with(|session| session.on_channel_closed(cx, channel, end));
    }

    fn on_eof(&mut self, cx: &mut Context<'_>, channel: Channel) {
        self.with(|session| session.on_eof(cx, channel));
    }

    fn on_message(&mut self, cx: &mut Context<'_>, channel: Channel, _: ChannelKind, m: &[u8]) {
        self.with(|session| session.on_message(cx, channel, m));
    }

    fn on_writable(&mut self, cx: &mut Context<'_>, channel: Channel) {
        self.with(|session| session.on_writable(cx, channel));
    }

    fn on_command(&mut self, cx: &mut Context<'_>, call: Call) {
        self.with(|session| (call.0)(session, cx));
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, token: u64) {
        self.with(|session| session.on_timer(cx, token));
    }
}
