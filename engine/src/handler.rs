//! The inline API: the application's code runs on the shard's own thread.
//!
//! Implement [`Handler`] and start it with [`Engine::start`](crate::Engine::start) on threads of
//! the engine, or drive a [`LocalShard`](crate::LocalShard) yourself. Each shard has its own
//! handler; nothing is shared between them but what the application shares.
//!
//! Every call gets a [`Context`], through which the handler answers: the protocol is not in the
//! middle of anything at that moment, so opening, sending, closing and destroying from inside any
//! call is allowed and takes effect at once. Bytes are slices of the very buffer that the kernel
//! filled whenever they arrived in order; they are valid for the call. [`Context::retain`] keeps
//! them.
//!
//! # Channels by name, and associations
//! [`Context::request_channel`] asks for a channel and for the connection that it needs in one call,
//! and shares connections; [`Context::associate`] makes a message association that queues, connects,
//! rests and ends by itself. See `docs/manager.md`.
//!
//! ```no_run
//! use trunkline::{
//!     Association, AssociationConfig, AssociationEvent, ChannelOptions, ConnectConfig, Context,
//!     Discontent, Handler, OpenRequest, Opened, RequestError, SecInfo, Security,
//! };
//!
//! struct App {
//!     bob: ConnectConfig,
//! }
//!
//! impl Handler for App {
//!     type Command = ();
//!
//!     fn on_start(&mut self, cx: &mut Context<'_>) {
//!         // Two files, one connection; each request gets exactly one answer.
//!         for name in ["file://1", "file://2"] {
//!             cx.request_channel(&self.bob, name, &ChannelOptions::default()).expect("settings");
//!         }
//!         // A message that waits for the connection; the token comes back with what became of it.
//!         let signals = AssociationConfig::new("signals");
//!         let hello = b"hello".to_vec();
//!         cx.send_to(&self.bob, signals, hello, 1, Security::Local).expect("settings");
//!     }
//!
//!     fn on_request_done(
//!         &mut self,
//!         cx: &mut Context<'_>,
//!         _: OpenRequest,
//!         outcome: Result<Opened, &RequestError>,
//!     ) {
//!         match outcome {
//!             Ok(opened) => cx.send(opened.channel, b"contents").expect("room"),
//!             Err(error) => eprintln!("no channel: {error}"),
//!         }
//!     }
//!
//!     fn on_association(&mut self, _: &mut Context<'_>, _: Association, event: &AssociationEvent) {
//!         if let AssociationEvent::Undelivered { token, error } = event {
//!             eprintln!("message {token}: {error}");
//!         }
//!     }
//!
//!     fn on_association_message(
//!         &mut self,
//!         _: &mut Context<'_>,
//!         _: Association,
//!         _message: &[u8],
//!         info: &SecInfo,
//!     ) -> Result<(), Discontent> {
//!         match info.peer.identity {
//!             Some(_) => Ok(()),
//!             None => Err(Discontent { code: 1403, text: "who are you?".into() }),
//!         }
//!     }
//! }
//! ```
//!
//! A handler must not block: its shard does nothing else meanwhile.

use crate::handle::{Association, Channel, Conn, OpenRequest};
use std::net::SocketAddr;
use trunkline_proto::config::ChannelKind;
use trunkline_proto::connection::SecInfo;
use trunkline_proto::error::CloseReason;
use trunkline_proto::event::{ChannelEnd, ChannelRequest, CloseReport, Incoming};
use trunkline_proto::manager::{AssociationEvent, RequestError, ReuseKey};
use trunkline_proto::status::Status;

pub use crate::shard::context::Context;
pub use crate::shard::stun::StunPacket;

/// A channel request that was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The channel, open on both sides.
    pub channel: Channel,
    /// It was there before, or was asked for by somebody else: a unique name joined it.
    pub joined: bool,
}

/// Why a handler does not go on with a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discontent {
    /// What the peer learns, 1000–2999.
    pub code: u32,
    /// Words for people, cut at 127 bytes.
    pub text: String,
}

/// What the application does about what happens on one shard. All calls are made by the shard's
/// thread, one at a time.
///
/// If a call panics, the shard ends all its connections with
/// [`Reason::INTERNAL`](trunkline_proto::error::Reason::INTERNAL), makes no further calls and
/// reports the panic; the other shards go on.
#[allow(unused_variables)]
pub trait Handler: Send + 'static {
    /// What other threads [`post`](crate::Engine::post) to this handler.
    type Command: Send + 'static;

    /// The shard runs. The first call.
    fn on_start(&mut self, cx: &mut Context<'_>) {}

    /// Host: a peer has proved itself and waits for [`Context::accept`] or [`Context::reject`],
    /// now or within the initial timeout. Rejects by default.
    fn on_incoming(&mut self, cx: &mut Context<'_>, conn: Conn, incoming: &Incoming<'_>) {
        let _ = cx.reject(
            conn,
            trunkline_proto::error::Reason::APP_REJECTED.0,
            "no connections are accepted here",
        );
    }

    /// The status of a connection changed; `reason` is there when the new status is an end. After
    /// `ClosedByPeer` and `ProblemDetectedLocally` the handle stays valid until
    /// [`Context::close`].
    fn on_status(
        &mut self,
        cx: &mut Context<'_>,
        conn: Conn,
        old: Status,
        new: Status,
        reason: Option<&CloseReason>,
    ) {
    }

    /// The connection is gone for good and its handle is stale. The last call about it.
    fn on_dead(&mut self, cx: &mut Context<'_>, conn: Conn, report: &CloseReport) {}

    /// The peer asks for a channel: [`Context::accept_channel`] or [`Context::decline_channel`],
    /// now or later. Declines by default.
    fn on_channel_request(
        &mut self,
        cx: &mut Context<'_>,
        channel: Channel,
        request: &ChannelRequest<'_>,
    ) {
        let _ = cx.decline_channel(
            channel,
            trunkline_proto::error::Reason::APP_REJECTED.0,
            "no channels are accepted here",
        );
    }

    /// The channel is usable: the peer accepted it, or our acceptance is on its way.
    fn on_channel_ready(&mut self, cx: &mut Context<'_>, channel: Channel) {}

    /// The channel ended and its handle is stale. Exactly once for every channel, except that
    /// nothing is told about the channels of a connection that we closed.
    fn on_channel_closed(&mut self, cx: &mut Context<'_>, channel: Channel, end: &ChannelEnd) {}

    /// The next bytes of a `bytes` channel.
    fn on_data(&mut self, cx: &mut Context<'_>, channel: Channel, bytes: &[u8]) {}

    /// A whole message of a `messages` or `datagrams` channel.
    fn on_message(
        &mut self,
        cx: &mut Context<'_>,
        channel: Channel,
        kind: ChannelKind,
        message: &[u8],
    ) {
    }

    /// The peer will send no more on this channel, and everything before was delivered.
    fn on_eof(&mut self, cx: &mut Context<'_>, channel: Channel) {}

    /// The peer cancelled what it was sending; what was not delivered never will be.
    fn on_reset(&mut self, cx: &mut Context<'_>, channel: Channel, code: u32) {}

    /// The peer refuses the rest of what we send on this channel.
    fn on_stopped(&mut self, cx: &mut Context<'_>, channel: Channel, code: u32) {}

    /// A send on this channel gave `WouldBlock`, and there is room again.
    fn on_writable(&mut self, cx: &mut Context<'_>, channel: Channel) {}

    /// Manual credit: what was not consumed is missing for the message that the peer is sending on
    /// this channel. Can come again before that is enough. Of interest to those who collect what
    /// they consume: see [`Context::credit_step`].
    fn on_credit_short(&mut self, cx: &mut Context<'_>, channel: Channel) {}

    /// The peer has acknowledged all of the message that was sent with this receipt token.
    fn on_receipt(&mut self, cx: &mut Context<'_>, channel: Channel, token: u64) {}

    /// A connection that was made over a relay has moved to another path, which is proven: back to
    /// the relay, or to a direct one at `remote`.
    fn on_path(&mut self, cx: &mut Context<'_>, conn: Conn, remote: SocketAddr, relayed: bool) {}

    /// A direct path that was tried did not answer.
    fn on_path_failed(
        &mut self,
        cx: &mut Context<'_>,
        conn: Conn,
        socket: u16,
        remote: SocketAddr,
    ) {
    }

    /// A connection gives way to another one of the same two peers, which connected to each other at
    /// the same time: ours to `by`, which was accepted here, or one that was offered to `by`, which
    /// is ours.
    fn on_superseded(&mut self, cx: &mut Context<'_>, conn: Conn, by: Conn) {}

    /// A STUN packet came to a client socket: it concerns the search for direct paths of
    /// [`PeerLink`](crate::rendezvous::PeerLink).
    fn on_stun(&mut self, cx: &mut Context<'_>, packet: StunPacket) {}

    /// The connectivity check asked for with [`Context::check`] was answered.
    fn on_check_answered(&mut self, cx: &mut Context<'_>, conn: Conn) {}

    /// A connection was begun for a channel request or an association, which needed one. It is
    /// freed by itself when it ends; [`Context::connect`] to the same peer makes it the caller's.
    fn on_connection_begun(&mut self, cx: &mut Context<'_>, conn: Conn, key: &ReuseKey) {}

    /// The answer to [`Context::request_channel`]. Exactly one for each.
    fn on_request_done(
        &mut self,
        cx: &mut Context<'_>,
        request: OpenRequest,
        outcome: Result<Opened, &RequestError>,
    ) {
    }

    /// Something happened to an association.
    fn on_association(
        &mut self,
        cx: &mut Context<'_>,
        association: Association,
        event: &AssociationEvent,
    ) {
    }

    /// A message came over an association, whose connection has this security. Who is not content
    /// returns an error: the connection is ended with its code and text.
    ///
    /// # Errors
    /// [`Discontent`].
    fn on_association_message(
        &mut self,
        cx: &mut Context<'_>,
        association: Association,
        message: &[u8],
        info: &SecInfo,
    ) -> Result<(), Discontent> {
        Ok(())
    }

    /// Another thread posted this.
    fn on_command(&mut self, cx: &mut Context<'_>, command: Self::Command) {}

    /// A timer of [`Context::set_timer`] is due.
    fn on_timer(&mut self, cx: &mut Context<'_>, token: u64) {}

    /// Once for every turn of the shard in which something happened, after all other calls and
    /// before anything is sent.
    fn on_batch_end(&mut self, cx: &mut Context<'_>) {}

    /// The engine ends: all connections are about to be closed, and, if `lingers`, what was sent on
    /// them is delivered first. The last moment to send what is still to go.
    fn on_shutdown(&mut self, cx: &mut Context<'_>, lingers: bool) {}

    /// The name under which a connection appears in reports; the queued API gives out names of
    /// its own, and counts what still waits with it.
    #[doc(hidden)]
    fn report_as(&self, conn: Conn, report: &mut CloseReport) -> Conn {
        conn
    }

    /// Bytes that wait for the handler in queues of its own.
    #[doc(hidden)]
    fn waiting_bytes(&self) -> u64 {
        0
    }
}
