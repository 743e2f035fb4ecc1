//! A client's pairing inside a handler: carries out what the machine wants, and tells it what
//! happens.
//!
//! The handler owns the session, passes on the calls that concern its connection or its timer
//! (each says whether it did), and takes notices from [`Session::poll_notice`]. It knows no other
//! connection of the handler, and never blocks.

use super::{EVENTS_CHANNEL, channel_options, connection_config};
use crate::config::{ConnectConfig, Reuse};
use crate::handle::{Channel, Conn, TimerId};
use crate::handler::Context;
use std::collections::VecDeque;
use trunkline_proto::error::{ApiError, CloseReason, Reason};
use trunkline_proto::event::ChannelEnd;
use trunkline_proto::rendezvous::event::{Abort, Event, decode};
use trunkline_proto::rendezvous::pairing::{Notice, Output, Pairing, PairingConfig};
use trunkline_proto::rendezvous::token::{AccessToken, credential};
use trunkline_proto::rendezvous::{ClientId, PairingRole};
use trunkline_proto::status::Status;
use trunkline_proto::time::{Duration, Instant};

/// Events that wait for room on the channel before the connection counts as broken: the machine's
/// own queue and rate come before it.
const MAX_UNSENT: usize = 256;
/// How long a connection that is left delivers its last events.
const FAREWELL: Duration = Duration::from_secs(2);

/// How a session reaches its event source.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// Addresses, name, trust and identity. The credential is the session's, and the connection is
    /// never shared; without settings of its own it gets those of
    /// [`connection_config`](super::connection_config).
    pub source: ConnectConfig,
    /// Our part.
    pub role: PairingRole,
    /// Timers and queues. A `backoff_seed` of 0 is replaced by `timer`, so that no two sessions of
    /// a handler have the same.
    pub pairing: PairingConfig,
    /// Token of the session's timer, which no other timer of the handler has.
    pub timer: u64,
}

/// A pairing and its connection. See the module.
#[derive(Debug)]
pub struct Session {
    pairing: Pairing,
    source: ConnectConfig,
    timer_token: u64,
    timer: Option<(TimerId, Instant)>,
    conn: Option<Conn>,
    channel: Option<Channel>,
    unsent: VecDeque<Vec<u8>>,
    notices: VecDeque<Notice>,
}

impl Session {
    /// A session that is passive, and does nothing before it is told to.
    ///
    /// # Errors
    /// A setting that is out of range.
    pub fn new(config: SessionConfig) -> Result<Self, ApiError> {
        let SessionConfig { mut source, role, mut pairing, timer } = config;
        source.reuse = Reuse::ForceNew;
        source.connection.get_or_insert_with(connection_config);
        source.credential.clear();
        source.validate()?;
        if pairing.backoff_seed == 0 {
            pairing.backoff_seed = timer.wrapping_add(1).max(1);
        }
        Ok(Self {
            pairing: Pairing::new(role, pairing)?,
            source,
            timer_token: timer,
            timer: None,
            conn: None,
            channel: None,
            unsent: VecDeque::new(),
            notices: VecDeque::new(),
        })
    }

    /// The machine, to be looked at.
    pub const fn pairing(&self) -> &Pairing {
        &self.pairing
    }

    /// The connection to the event source, if there is one.
    pub const fn conn(&self) -> Option<Conn> {
        self.conn
    }

    /// Calls the machine, and does what it then wants.
    pub fn call<R>(
        &mut self,
        cx: &mut Context<'_>,
        f: impl FnOnce(&mut Pairing, Instant) -> R,
    ) -> R {
        let result = f(&mut self.pairing, cx.now());
        self.carry_out(cx);
        result
    }

    /// The next thing that the application has to know.
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// From [`Handler::on_status`](crate::Handler::on_status). `true`: it was about this session.
    pub fn on_status(
        &mut self,
        cx: &mut Context<'_>,
        conn: Conn,
        new: Status,
        reason: Option<&CloseReason>,
    ) -> bool {
        if self.conn != Some(conn) {
            return false;
        }
        match new {
            Status::Connected => match cx.open_channel(conn, EVENTS_CHANNEL, &channel_options()) {
                Ok(channel) => self.channel = Some(channel),
                Err(_) => self.lost(cx, None),
            },
            Status::ClosedByPeer | Status::ProblemDetectedLocally => {
                self.lost(cx, reason.and_then(|r| Abort::from_reason(r.reason)));
            }
            _ => {}
        }
        true
    }

    /// From [`Handler::on_channel_ready`](crate::Handler::on_channel_ready).
    pub fn on_channel_ready(&mut self, cx: &mut Context<'_>, channel: Channel) -> bool {
        let ours = self.channel == Some(channel);
        if ours {
            self.call(cx, Pairing::connection_open);
        }
        ours
    }

    /// From [`Handler::on_channel_closed`](crate::Handler::on_channel_closed).
    pub fn on_channel_closed(
        &mut self,
        cx: &mut Context<'_>,
        channel: Channel,
        end: &ChannelEnd,
    ) -> bool {
        let ours = self.channel == Some(channel);
        // When the connection has ended, its status says so, and why.
        if ours && !matches!(end, ChannelEnd::Connection(_)) {
            self.lost(cx, None);
        }
        ours
    }

    /// From [`Handler::on_eof`](crate::Handler::on_eof): without its channel the connection is of
    /// no use.
    pub fn on_eof(&mut self, cx: &mut Context<'_>, channel: Channel) -> bool {
        let ours = self.channel == Some(channel);
        if ours {
            self.lost(cx, None);
        }
        ours
    }

    /// From [`Handler::on_message`](crate::Handler::on_message).
    pub fn on_message(&mut self, cx: &mut Context<'_>, channel: Channel, message: &[u8]) -> bool {
        let ours = self.channel == Some(channel);
        if ours && let Ok(event) = decode(message) {
            self.call(cx, |pairing, now| pairing.receive(now, &event));
        }
        ours
    }

    /// From [`Handler::on_writable`](crate::Handler::on_writable).
    pub fn on_writable(&mut self, cx: &mut Context<'_>, channel: Channel) -> bool {
        let ours = self.channel == Some(channel);
        while ours
            && let Some(message) = self.unsent.front()
            && cx.send(channel, message).is_ok()
        {
            self.unsent.pop_front();
        }
        ours
    }

    /// From [`Handler::on_timer`](crate::Handler::on_timer).
    pub fn on_timer(&mut self, cx: &mut Context<'_>, token: u64) -> bool {
        let ours = token == self.timer_token;
        if ours {
            self.timer = None;
            self.call(cx, Pairing::handle_timeout);
        }
        ours
    }

    fn carry_out(&mut self, cx: &mut Context<'_>) {
        while let Some(output) = self.pairing.poll() {
            match output {
                Output::Connect { client, token, role } => self.connect(cx, &client, &token, role),
                Output::Disconnect => self.leave(cx),
                Output::Send(event) => self.send(cx, &event),
                Output::Notice(notice) => self.notices.push_back(notice),
                _ => {}
            }
        }
        let next = self.pairing.next_timeout();
        if self.timer.map(|(_, at)| at) != next {
            if let Some((timer, _)) = self.timer.take() {
                cx.cancel_timer(timer);
            }
            self.timer = next.map(|at| (cx.set_timer_at(at, self.timer_token), at));
        }
    }

    fn connect(
        &mut self,
        cx: &mut Context<'_>,
        client: &ClientId,
        token: &AccessToken,
        role: PairingRole,
    ) {
        self.source.credential = credential(token, client, role);
        let made = cx.connect(&self.source);
        self.source.credential.clear();
        match made {
            Ok(conn) => self.conn = Some(conn),
            // The loop that called goes on with what the machine makes of it.
            Err(error) => {
                tracing::debug!(%error, "no connection to the event source");
                self.pairing.connection_closed(cx.now());
            }
        }
    }

    /// The machine wants no connection any more.
    fn leave(&mut self, cx: &mut Context<'_>) {
        self.channel = None;
        self.unsent.clear();
        if let Some(conn) = self.conn.take() {
            let _ = cx.close(conn, Reason::APP.0, "", Some(FAREWELL));
        }
    }

    /// The connection has ended, or is of no use.
    fn lost(&mut self, cx: &mut Context<'_>, abort: Option<Abort>) {
        self.leave(cx);
        self.call(cx, |pairing, now| match abort {
            Some(reason) => pairing.connection_aborted(now, reason),
            None => pairing.connection_closed(now),
        });
    }

    fn send(&mut self, cx: &mut Context<'_>, event: &Event) {
        let Some(channel) = self.channel else { return };
        let message = event.encode();
        if self.unsent.is_empty() && cx.send(channel, &message).is_ok() {
            return;
        }
        if self.unsent.len() < MAX_UNSENT {
            self.unsent.push_back(message);
            return;
        }
        tracing::warn!("the event source takes no events; the connection is given up");
        self.leave(cx);
        self.pairing.connection_closed(cx.now());
    }
}
