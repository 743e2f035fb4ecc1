//! The conversation on the engine's thread: the pairing with the other place of the code, and lines
//! over whatever way there is.

use super::code::{Code, Place, Seal};
use super::lines::{Heard, Lines};
use crate::exit::{Exit, Failure};
use crate::keygen::{self, random};
use std::net::SocketAddr;
use std::sync::mpsc::Sender;
use trunkline::rendezvous::{
    Abort, Notice, PairingConfig, PairingRole, PairingState, PeerConfig, PeerLink, Session,
    SessionConfig,
};
use trunkline::{
    Channel, ChannelEnd, ChannelKind, ChannelOptions, ChannelRequest, CloseReason, Conn,
    ConnectConfig, Context, Duration, Handler, Identity, Incoming, PeerId, Reason, Status,
    StunPacket,
};

/// Subtype of the events that carry lines.
const SUBTYPE: u16 = 1;
/// What was not acknowledged is said again after this time.
const AGAIN: Duration = Duration::from_secs(2);
/// Token of the timer for it.
const AGAIN_TIMER: u64 = 0;
/// Token of the timer of the connection with the other one; those of sessions follow.
const LINK_TIMER: u64 = 1;
/// Subtype of the events in which each tells the other its fingerprint.
const FINGERPRINT: u16 = 2;
/// Name of the channel of lines.
const LINES_CHANNEL: &str = "lines";

/// What threads tell the handler.
#[derive(Debug)]
pub enum Command {
    /// The user said this.
    Say(String),
    /// The user wants no more.
    Quit,
}

/// What the user is shown.
#[derive(Debug)]
pub enum Show {
    /// The pairing has another state.
    State(PairingState),
    /// Lines take another way.
    Route(Route),
    /// The connection with the other one has another status.
    Link(Status),
    /// The other one is there.
    Arrived,
    /// It says this.
    Heard(String),
    /// What the user said has this number.
    Said(u64),
    /// The other one has all up to this number.
    Delivered(u64),
    /// What the user said was not taken.
    Full,
    /// It is over.
    Ended(Option<Failure>),
}

/// The way that lines take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Events of the pairing, by way of the event source.
    Events,
    /// A connection with the other one, whose packets the event source relays.
    Relayed,
    /// A connection with the other one, from machine to machine.
    Direct,
}

impl Route {
    /// The word for programs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Relayed => "relayed",
            Self::Direct => "direct",
        }
    }

    /// The words for people.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Events => "talking by way of the event source, sealed end to end",
            Self::Relayed => "talking over a connection that the event source relays",
            Self::Direct => "talking directly",
        }
    }
}

/// See the module.
pub struct ChatHandler {
    code: Code,
    source: ConnectConfig,
    seal: Seal,
    place: Place,
    session: Option<Session>,
    /// Sessions so far; the timer of each has its number.
    sessions: u64,
    lines: Lines,
    show: Sender<Show>,
    identity: Identity,
    link: PeerLink,
    /// The other one's fingerprint, as it has told.
    other: Option<PeerId>,
    /// The channel of lines of the connection with the other one, once it is usable.
    channel: Option<Channel>,
    /// The way last shown.
    shown: Option<Route>,
}

impl ChatHandler {
    /// With the event source of the code, which is reached as `source` says.
    pub fn new(code: &Code, source: ConnectConfig, show: Sender<Show>) -> Result<Self, Failure> {
        let mut number = [0; 8];
        random(&mut number)?;
        let (identity, _) = keygen::ephemeral()?;
        Ok(Self {
            seal: code.seal()?,
            code: code.clone(),
            source,
            place: Place::Host,
            session: None,
            sessions: LINK_TIMER,
            lines: Lines::new(u64::from_be_bytes(number)),
            show,
            link: PeerLink::new(PeerConfig::new(identity.clone(), LINK_TIMER)),
            identity,
            other: None,
            channel: None,
            shown: None,
        })
    }

    fn tell(&self, show: Show) {
        let _ = self.show.send(show);
    }

    fn end(&mut self, cx: &mut Context<'_>, failure: Option<Failure>) {
        if let Some(mut session) = self.session.take() {
            self.link.leave(cx);
            session.call(cx, |pairing, now| pairing.set_active(now, false));
            self.tell(Show::Ended(failure));
        }
    }

    /// Takes a place at the event source.
    fn take_place(&mut self, cx: &mut Context<'_>, place: Place) -> Result<(), Failure> {
        self.place = place;
        self.sessions += 1;
        let role = match place {
            Place::Host => PairingRole::Responder,
            Place::Guest => PairingRole::Controller,
        };
        let mut seed = [0; 8];
        random(&mut seed)?;
        let pairing = PairingConfig {
            event_interval: Duration::ZERO,
            backoff_seed: u64::from_be_bytes(seed),
            ..PairingConfig::default()
        };
        let config = SessionConfig {
            source: self.source.clone(),
            role,
            pairing,
            timer: self.sessions,
            relay: true,
        };
        let local = |e: trunkline::ApiError| Failure::local(e.to_string());
        let mut session = Session::new(config).map_err(local)?;
        let (own, other) = (self.code.client(place)?, self.code.client(place.other())?);
        session.call(cx, |p, now| p.assign_client_id(now, Some(own))).map_err(local)?;
        session.call(cx, |p, now| p.assign_partner(now, Some(other))).map_err(local)?;
        let token = self.code.token.clone();
        session.call(cx, |p, now| p.assign_access_token(now, Some(token)));
        session.call(cx, |p, now| p.set_active(now, true));
        self.session = Some(session);
        self.after(cx);
        Ok(())
    }

    /// Calls the session, and deals with what came of it.
    fn with(
        &mut self,
        cx: &mut Context<'_>,
        f: impl FnOnce(&mut Session, &mut Context<'_>) -> bool,
    ) {
        if let Some(session) = &mut self.session {
            f(session, cx);
            self.after(cx);
        }
    }

    /// Calls the link with the session, and deals with what came of it.
    fn with_link(
        &mut self,
        cx: &mut Context<'_>,
        f: impl FnOnce(&mut PeerLink, &mut Context<'_>, &mut Session) -> bool,
    ) -> bool {
        let Some(session) = &mut self.session else { return false };
        let ours = f(&mut self.link, cx, session);
        if ours {
            self.after(cx);
        }
        ours
    }

    fn after(&mut self, cx: &mut Context<'_>) {
        while let Some(notice) = self.session.as_mut().and_then(Session::poll_notice) {
            if let Some(session) = &mut self.session
                && self.link.on_notice(cx, session, &notice)
            {
                continue;
            }
            match notice {
                Notice::State { new, .. } => {
                    self.tell(Show::State(new));
                    if new == PairingState::Interacting {
                        self.show_route(cx);
                        self.lines.greet();
                        self.tell_fingerprint(cx);
                    }
                }
                Notice::Event { subtype: SUBTYPE, body, .. } => self.hear(&body),
                Notice::Event { subtype: FINGERPRINT, body, .. } => self.learn(cx, &body),
                Notice::Rejected { reason, .. } => tracing::info!(%reason, "rejected"),
                Notice::Aborted(reason) => self.aborted(cx, reason),
                _ => {}
            }
        }
        if let Some(session) = &mut self.session {
            self.link.pump(cx, session);
        }
        self.speak(cx);
    }

    /// Tells the other one under which key we connect and accept.
    fn tell_fingerprint(&mut self, cx: &mut Context<'_>) {
        let own = self.identity.peer_id();
        if let (Some(session), Some(body)) = (&mut self.session, self.seal.seal(self.place, &own.0))
        {
            let _ = session.call(cx, |p, now| p.send(now, FINGERPRINT, &body, false));
        }
    }

    /// The other one tells its fingerprint: it has the secret of the code.
    fn learn(&mut self, cx: &mut Context<'_>, body: &[u8]) {
        let opened = self.seal.open(self.place.other(), body);
        let Some(Ok(id)) = opened.map(TryInto::try_into) else { return };
        if self.other.replace(PeerId(id)) != Some(PeerId(id)) {
            // It has come, or has started anew, and does not know our fingerprint yet.
            self.unlink(cx);
            self.tell_fingerprint(cx);
        }
        self.link_up(cx);
    }

    /// The connection with the other one is of no use any more.
    fn unlink(&mut self, cx: &mut Context<'_>) {
        self.link.leave(cx);
        self.channel_gone(cx);
    }

    /// Sees to it that there is a connection with the other one.
    fn link_up(&mut self, cx: &mut Context<'_>) {
        let (Some(session), Some(other)) = (&mut self.session, self.other) else { return };
        if session.pairing().state() != PairingState::Interacting {
            return;
        }
        let before = self.link.conn();
        let error = match self.place {
            Place::Guest => self.link.connect(cx, session, other).err().map(|e| e.to_string()),
            Place::Host => self.link.accept(cx, session, other).err().map(|e| e.to_string()),
        };
        if let Some(error) = error {
            tracing::debug!(error, "no connection with the other one yet");
        }
        if let Some(conn) = self.link.conn().filter(|_| before.is_none()) {
            self.tell(Show::Link(cx.status(conn)));
        }
    }

    /// Tells the user when lines take another way.
    fn show_route(&mut self, cx: &Context<'_>) {
        let relayed = |conn| cx.info(conn).is_none_or(|info| info.relayed);
        let route = match self.channel {
            None => Route::Events,
            Some(channel) if relayed(channel.conn()) => Route::Relayed,
            Some(_) => Route::Direct,
        };
        if self.shown.replace(route) != Some(route) {
            self.tell(Show::Route(route));
        }
    }

    fn channel_ready(&mut self, cx: &mut Context<'_>, channel: Channel) {
        self.channel = Some(channel);
        self.show_route(cx);
        self.lines.again();
        self.speak(cx);
    }

    fn channel_gone(&mut self, cx: &Context<'_>) {
        if self.channel.take().is_some() {
            self.lines.again();
            self.show_route(cx);
        }
    }

    fn aborted(&mut self, cx: &mut Context<'_>, reason: Abort) {
        let trust = |text: String| Some(Failure::new(Exit::Trust, text));
        let failure = match (reason, self.place) {
            // The other one has come, and has taken the place: now it is called.
            (Abort::ReleasedByOther, Place::Host) => {
                self.unlink(cx);
                self.session = None;
                self.other = None;
                match self.take_place(cx, Place::Guest) {
                    Ok(()) => return,
                    Err(failure) => Some(failure),
                }
            }
            (Abort::ReleasedByOther, Place::Guest) => {
                trust("somebody else has come with this code".to_owned())
            }
            _ => trust(format!("the event source does not let us in: {reason}")),
        };
        self.tell(Show::Ended(failure));
        self.session = None;
    }

    fn hear(&mut self, body: &[u8]) {
        let Some(packet) = self.seal.open(self.place.other(), body) else {
            tracing::warn!("something was said that is not sealed with the secret of the code");
            return;
        };
        match self.lines.receive(&packet) {
            Some(Heard::Arrived) => self.tell(Show::Arrived),
            Some(Heard::Line(text)) => self.tell(Show::Heard(text)),
            Some(Heard::Delivered(number)) => self.tell(Show::Delivered(number)),
            None => {}
        }
    }

    /// Sends what is to be sent.
    fn speak(&mut self, cx: &mut Context<'_>) {
        while let Some(packet) = self.lines.poll() {
            if let Some(channel) = self.channel
                && let Some(body) = self.seal.seal(self.place, &packet)
                && cx.send(channel, &body).is_ok()
            {
                continue;
            }
            let Some(session) = &mut self.session else { return };
            // What is lost here is said again.
            if session.pairing().state() == PairingState::Interacting
                && let Some(body) = self.seal.seal(self.place, &packet)
            {
                let _ = session.call(cx, |p, now| p.send(now, SUBTYPE, &body, false));
            }
        }
    }
}

impl Handler for ChatHandler {
    type Command = Command;

    fn on_start(&mut self, cx: &mut Context<'_>) {
        cx.set_timer(AGAIN, AGAIN_TIMER);
        if let Err(failure) = self.take_place(cx, Place::Host) {
            self.tell(Show::Ended(Some(failure)));
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
        if self.link.conn() != Some(conn) {
            self.with(cx, |session, cx| session.on_status(cx, conn, new, reason));
            return;
        }
        self.tell(Show::Link(new));
        match new {
            Status::Connected if self.place == Place::Guest => {
                let kind = ChannelKind::Messages;
                let options = ChannelOptions { kind, no_delay: true, ..ChannelOptions::default() };
                let _ = cx.open_channel(conn, LINES_CHANNEL, &options);
            }
            Status::ClosedByPeer | Status::ProblemDetectedLocally => self.channel_gone(cx),
            _ => {}
        }
        self.with_link(cx, |link, cx, session| link.on_status(cx, session, conn, new));
    }

    fn on_incoming(&mut self, cx: &mut Context<'_>, conn: Conn, incoming: &Incoming<'_>) {
        if !self.link.on_incoming(cx, conn, incoming) {
            let _ = cx.reject(conn, Reason::APP_REJECTED.0, "not expected");
        }
    }

    fn on_channel_request(
        &mut self,
        cx: &mut Context<'_>,
        channel: Channel,
        request: &ChannelRequest<'_>,
    ) {
        let fits = self.link.conn() == Some(channel.conn())
            && request.name == LINES_CHANNEL
            && request.options.kind == ChannelKind::Messages;
        if !fits || cx.accept_channel(channel, &request.options).is_err() {
            let _ = cx.decline_channel(channel, Reason::APP_REJECTED.0, "not expected");
        }
    }

    fn on_path(&mut self, cx: &mut Context<'_>, conn: Conn, remote: SocketAddr, relayed: bool) {
        let path = (remote, relayed);
        self.with_link(cx, |link, cx, session| link.on_path(cx, session, conn, path));
        if self.channel.is_some() {
            self.show_route(cx);
        }
    }

    fn on_path_failed(
        &mut self,
        cx: &mut Context<'_>,
        conn: Conn,
        socket: u16,
        remote: SocketAddr,
    ) {
        let path = (socket, remote);
        self.with_link(cx, |link, cx, session| link.on_path_failed(cx, session, conn, path));
    }

    fn on_stun(&mut self, cx: &mut Context<'_>, packet: StunPacket) {
        self.with_link(cx, |link, cx, session| link.on_stun(cx, session, &packet));
    }

    fn on_channel_ready(&mut self, cx: &mut Context<'_>, channel: Channel) {
        if self.link.conn() == Some(channel.conn()) {
            self.channel_ready(cx, channel);
            return;
        }
        self.with(cx, |session, cx| session.on_channel_ready(cx, channel));
    }

    fn on_channel_closed(&mut self, cx: &mut Context<'_>, channel: Channel, end: &ChannelEnd) {
        if self.channel == Some(channel) {
            self.channel_gone(cx);
        }
        self.with(cx, |session, cx| session.on_channel_closed(cx, channel, end));
    }

    fn on_eof(&mut self, cx: &mut Context<'_>, channel: Channel) {
        self.with(cx, |session, cx| session.on_eof(cx, channel));
    }

    fn on_message(&mut self, cx: &mut Context<'_>, channel: Channel, _: ChannelKind, m: &[u8]) {
        if self.link.conn() == Some(channel.conn()) {
            self.hear(m);
            self.speak(cx);
            return;
        }
        self.with(cx, |session, cx| session.on_message(cx, channel, m));
    }

    fn on_writable(&mut self, cx: &mut Context<'_>, channel: Channel) {
        self.with(cx, |session, cx| session.on_writable(cx, channel));
    }

    fn on_command(&mut self, cx: &mut Context<'_>, command: Command) {
        match command {
            Command::Say(text) => {
                match self.lines.say(&text) {
                    Some(number) => self.tell(Show::Said(number)),
                    None => self.tell(Show::Full),
                }
                self.speak(cx);
            }
            Command::Quit => self.end(cx, None),
        }
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, token: u64) {
        if token == LINK_TIMER {
            self.with_link(cx, |link, cx, session| link.on_timer(cx, session, token));
            return;
        }
        if token != AGAIN_TIMER {
            self.with(cx, |session, cx| session.on_timer(cx, token));
            return;
        }
        cx.set_timer(AGAIN, AGAIN_TIMER);
        if self.other.is_none() {
            self.tell_fingerprint(cx);
        }
        if self.link.conn().is_none() {
            self.link_up(cx);
        }
        if self.lines.wants_again() {
            self.lines.again();
            self.speak(cx);
        }
    }
}
