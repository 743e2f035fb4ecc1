//! The conversation on the engine's thread: the pairing with the other place of the code, and lines
//! over whatever way there is.

use super::code::{Code, Place, Seal, fill};
use super::lines::{Heard, Lines};
use crate::exit::{Exit, Failure};
use std::net::SocketAddr;
use std::sync::mpsc::Sender;
use trunkline::rendezvous::{
    Abort, Notice, PairingConfig, PairingRole, PairingState, Session, SessionConfig,
};
use trunkline::{
    Channel, ChannelEnd, ChannelKind, CloseReason, Conn, ConnectConfig, Context, Duration, Handler,
    Status, Trust,
};

/// Subtype of the events that carry lines.
const SUBTYPE: u16 = 1;
/// What was not acknowledged is said again after this time.
const AGAIN: Duration = Duration::from_secs(2);
/// Token of the timer for it; those of sessions follow.
const AGAIN_TIMER: u64 = 0;

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
}

impl Route {
    /// The word for programs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
        }
    }

    /// The words for people.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Events => "talking by way of the event source, sealed end to end",
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
}

impl ChatHandler {
    pub fn new(code: &Code, remotes: Vec<SocketAddr>, show: Sender<Show>) -> Result<Self, Failure> {
        let mut random = [0; 8];
        fill(&mut random)?;
        let mut source = ConnectConfig::new(remotes[0], Trust::Pins(vec![code.fingerprint]));
        source.remotes = remotes;
        Ok(Self {
            seal: code.seal()?,
            code: code.clone(),
            source,
            place: Place::Host,
            session: None,
            sessions: 0,
            lines: Lines::new(u64::from_be_bytes(random)),
            show,
        })
    }

    fn tell(&self, show: Show) {
        let _ = self.show.send(show);
    }

    fn end(&mut self, cx: &mut Context<'_>, failure: Option<Failure>) {
        if let Some(mut session) = self.session.take() {
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
        fill(&mut seed)?;
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
            relay: false,
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

    fn after(&mut self, cx: &mut Context<'_>) {
        while let Some(notice) = self.session.as_mut().and_then(Session::poll_notice) {
            match notice {
                Notice::State { new, .. } => {
                    self.tell(Show::State(new));
                    if new == PairingState::Interacting {
                        self.tell(Show::Route(Route::Events));
                        self.lines.greet();
                    }
                }
                Notice::Event { subtype: SUBTYPE, body, .. } => self.hear(&body),
                Notice::Rejected { reason, .. } => tracing::info!(%reason, "rejected"),
                Notice::Aborted(reason) => self.aborted(cx, reason),
                _ => {}
            }
        }
        self.speak(cx);
    }

    fn aborted(&mut self, cx: &mut Context<'_>, reason: Abort) {
        let trust = |text: String| Some(Failure::new(Exit::Trust, text));
        let failure = match (reason, self.place) {
            // The other one has come, and has taken the place: now it is called.
            (Abort::ReleasedByOther, Place::Host) => {
                self.session = None;
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
        self.with(cx, |session, cx| session.on_status(cx, conn, new, reason));
    }

    fn on_channel_ready(&mut self, cx: &mut Context<'_>, channel: Channel) {
        self.with(cx, |session, cx| session.on_channel_ready(cx, channel));
    }

    fn on_channel_closed(&mut self, cx: &mut Context<'_>, channel: Channel, end: &ChannelEnd) {
        self.with(cx, |session, cx| session.on_channel_closed(cx, channel, end));
    }

    fn on_eof(&mut self, cx: &mut Context<'_>, channel: Channel) {
        self.with(cx, |session, cx| session.on_eof(cx, channel));
    }

    fn on_message(&mut self, cx: &mut Context<'_>, channel: Channel, _: ChannelKind, m: &[u8]) {
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
        if token != AGAIN_TIMER {
            self.with(cx, |session, cx| session.on_timer(cx, token));
            return;
        }
        cx.set_timer(AGAIN, AGAIN_TIMER);
        if self.lines.wants_again() {
            self.lines.again();
            self.speak(cx);
        }
    }
}
