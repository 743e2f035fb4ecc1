//! A client's pairing inside a handler: carries out what the machine wants, and tells it what
//! happens.
//!
//! The handler owns the session, passes on the calls that concern its connection or its timer
//! (each says whether it did), and takes notices from [`Session::poll_notice`]. It knows no other
//! connection of the handler, and never blocks.

use super::{EVENTS_CHANNEL, RELAY_CHANNEL, channel_options, connection_config, relay_options};
use crate::config::{ConnectConfig, Reuse};
use crate::handle::{Channel, Conn, TimerId};
use crate::handler::Context;
use std::collections::VecDeque;
use std::net::SocketAddr;
use trunkline_proto::error::{ApiError, CloseReason, Reason};
use trunkline_proto::event::ChannelEnd;
use trunkline_proto::limits::MAX_RELAY_PACKET;
use trunkline_proto::rendezvous::event::{Abort, Event, decode};
use trunkline_proto::rendezvous::pairing::{Notice, Output, Pairing, PairingConfig};
use trunkline_proto::rendezvous::token::{AccessToken, credential};
use trunkline_proto::rendezvous::{ClientId, PairingRole, relay};
use trunkline_proto::status::Status;
use trunkline_proto::time::{Duration, Instant};

/// Events that wait for room on the channel before the connection counts as broken: the machine's
/// own queue and rate come before it.
const MAX_UNSENT: usize = 256;
/// Packets of the partner that wait for the handler; more are dropped.
const MAX_PACKETS: usize = 256;
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
    /// Whether packets are exchanged with the partner by way of the event source, on a channel of
    /// their own.
    pub relay: bool,
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
    relay: Relay,
}

/// Packets by way of the event source.
#[derive(Debug, Default)]
struct Relay {
    wanted: bool,
    channel: Option<Channel>,
    received: VecDeque<Box<[u8]>>,
    scratch: Vec<u8>,
}

impl Session {
    /// A session that is passive, and does nothing before it is told to.
    ///
    /// # Errors
    /// A setting that is out of range.
    pub fn new(config: SessionConfig) -> Result<Self, ApiError> {
        let SessionConfig { mut source, role, mut pairing, timer, relay } = config;
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
            relay: Relay { wanted: relay, ..Relay::default() },
        })
    }

    /// The machine, to be looked at.
    pub const fn pairing(&self) -> &Pairing {
        &self.pairing
    }

    /// Addresses of the event source.
    pub fn sources(&self) -> &[SocketAddr] {
        &self.source.remotes
    }

    /// The channel of packets, if there is one.
    pub const fn relay_channel(&self) -> Option<Channel> {
        self.relay.channel
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

    /// Sends a packet to the partner by way of the event source. Nobody says whether it arrives.
    ///
    /// # Errors
    /// [`ApiError::MessageTooLarge`]; [`ApiError::NoConnection`] without a partner, or without a
    /// channel of packets; [`ApiError::WouldBlock`] when the channel has no room: the packet is
    /// dropped.
    pub fn send_relayed(&mut self, cx: &mut Context<'_>, packet: &[u8]) -> Result<(), ApiError> {
        if packet.len() > MAX_RELAY_PACKET {
            return Err(ApiError::MessageTooLarge { len: packet.len(), limit: MAX_RELAY_PACKET });
        }
        let channel =
            self.relay.channel.ok_or(ApiError::NoConnection("packets are not relayed"))?;
        let partner = self.pairing.partner().filter(|_| self.pairing.state().is_paired());
        let partner = partner.ok_or(ApiError::NoConnection("not paired"))?;
        self.relay.scratch.clear();
        relay::encode(&mut self.relay.scratch, partner.as_str(), packet);
        cx.send(channel, &self.relay.scratch)
    }

    /// The next packet of the partner that came by way of the event source.
    pub fn poll_relayed(&mut self) -> Option<Box<[u8]>> {
        self.relay.received.pop_front()
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
                Ok(channel) => {
                    self.channel = Some(channel);
                    if self.relay.wanted {
                        let relay = cx.open_channel(conn, RELAY_CHANNEL, &relay_options());
                        self.relay.channel = relay.ok();
                    }
                }
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
        ours || self.relay.channel == Some(channel)
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
        ours || self.relay.channel.take_if(|relay| *relay == channel).is_some()
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
        ours || (self.relay.channel == Some(channel) && self.take_relayed(message))
    }

    /// Packets of others than the partner never reach the application, as their events do not.
    fn take_relayed(&mut self, message: &[u8]) -> bool {
        if let Ok(read) = relay::decode(message)
            && self.pairing.state().is_paired()
            && self.pairing.partner().is_some_and(|p| p.as_str() == read.client)
            && self.relay.received.len() < MAX_PACKETS
        {
            self.relay.received.push_back(read.packet.into());
        }
        true
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
        self.relay.channel = None;
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
