//! The application on our side: does what the name of a channel says, and tells the test.

use ring::digest;
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::mpsc::Sender;
use trunkline::{
    Channel, ChannelEnd, ChannelOptions, ChannelRequest, CloseReason, CloseReport, Conn, Context,
    Duration, Handler, Incoming, Reason, Status,
};

use crate::common::pattern;

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Saw {
    Incoming,
    Status(Status, Option<CloseReason>),
    Request(String, u16),
    Ready(String),
    /// Bytes of a channel that is not in bulk.
    Data(String, usize),
    /// A channel in bulk ended; the digests of what came and what went.
    Bulk {
        name: String,
        received: String,
        sent: String,
    },
    /// Everything of a source went; its digest.
    Sent(String),
    Closed(String, ChannelEnd),
    Dead(CloseReport),
}

pub type Act = Box<dyn FnOnce(&mut App, &mut Context<'_>) + Send>;

/// Bytes of a piece.
const PIECE: usize = 60_000;

/// One channel.
struct Use {
    name: String,
    ours: bool,
    unsent: usize,
    missing: usize,
    finished: bool,
    received: digest::Context,
    sent: digest::Context,
}

/// See the module.
pub struct App {
    saw: Sender<Saw>,
    conn: Option<Conn>,
    channels: HashMap<Channel, Use>,
    block: Vec<u8>,
    /// Bytes of every channel in bulk, each way.
    pub bulk: usize,
    /// Close with this linger when a source has handed everything over.
    pub close_when_sent: Option<Duration>,
}

/// A channel whose data nobody cares for.
const CHATTER: &str = "chatter";

fn hex(context: digest::Context) -> String {
    context.finish().as_ref().iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

impl App {
    pub fn new(saw: Sender<Saw>) -> Self {
        Self {
            saw,
            conn: None,
            channels: HashMap::new(),
            block: pattern(1 << 20, 3),
            bulk: 0,
            close_when_sent: None,
        }
    }

    fn tell(&self, saw: Saw) {
        let _ = self.saw.send(saw);
    }

    fn note(&mut self, channel: Channel, name: &str, ours: bool) {
        self.channels.insert(
            channel,
            Use {
                name: name.into(),
                ours,
                unsent: 0,
                missing: 0,
                finished: false,
                received: digest::Context::new(&digest::SHA256),
                sent: digest::Context::new(&digest::SHA256),
            },
        );
    }

    pub fn open(&mut self, cx: &mut Context<'_>, name: &str) {
        let conn = self.conn.expect("connected");
        let channel = cx.open_channel(conn, name, &ChannelOptions::default()).unwrap();
        self.note(channel, name, true);
    }

    /// As soon as it is known how much goes through it.
    pub fn open_bulk(&mut self, cx: &mut Context<'_>, name: &str) {
        self.open(cx, name);
        // Those that the peer asked for meanwhile.
        let waiting: Vec<Channel> = self.channels.keys().copied().collect();
        for channel in waiting {
            let used = &self.channels[&channel];
            if used.missing == 0 && !used.ours && used.name != CHATTER {
                self.begin(cx, channel);
            }
        }
    }

    pub fn close(&mut self, cx: &mut Context<'_>, linger: Option<Duration>) {
        cx.close(self.conn.expect("connected"), Reason::APP.0, "", linger).unwrap();
    }

    fn begin(&mut self, cx: &mut Context<'_>, channel: Channel) {
        let bulk = self.bulk;
        let Some(used) = self.channels.get_mut(&channel) else { return };
        if used.name.starts_with("bulk") {
            (used.unsent, used.missing) = (bulk, bulk);
        } else if used.name == "source" {
            used.unsent = bulk;
        }
        self.pump(cx, channel);
    }

    /// Hands over what the channel takes.
    fn pump(&mut self, cx: &mut Context<'_>, channel: Channel) {
        let Some(used) = self.channels.get_mut(&channel) else { return };
        while used.unsent > 0 {
            let start = used.unsent * 977 % (self.block.len() - PIECE);
            let piece = &self.block[start..start + PIECE.min(used.unsent)];
            if cx.send(channel, piece).is_err() {
                return;
            }
            used.unsent -= piece.len();
            used.sent.update(piece);
        }
        let is_source = used.name == "source" && !used.finished;
        if is_source {
            used.finished = true;
            let hash = hex(used.sent.clone());
            cx.finish(channel).unwrap();
            self.tell(Saw::Sent(hash));
            if let Some(linger) = self.close_when_sent {
                self.close(cx, Some(linger));
            }
            return;
        }
        self.settle(cx, channel);
    }

    /// The side that asked for a channel ends it when all came and all went.
    fn settle(&mut self, cx: &mut Context<'_>, channel: Channel) {
        let bulk = self.bulk;
        let Some(used) = self.channels.get_mut(&channel) else { return };
        let over = used.name.starts_with("bulk") && used.unsent + used.missing == 0 && bulk > 0;
        if over && used.ours && !std::mem::replace(&mut used.finished, true) {
            cx.finish(channel).unwrap();
        }
    }
}

impl Handler for App {
    type Command = Act;

    fn on_command(&mut self, cx: &mut Context<'_>, act: Act) {
        act(self, cx);
    }

    fn on_incoming(&mut self, cx: &mut Context<'_>, conn: Conn, incoming: &Incoming<'_>) {
        assert!(incoming.credential.is_empty() && incoming.peer.is_none());
        self.tell(Saw::Incoming);
        cx.accept(conn).unwrap();
    }

    fn on_status(
        &mut self,
        cx: &mut Context<'_>,
        conn: Conn,
        _: Status,
        new: Status,
        reason: Option<&CloseReason>,
    ) {
        if new == Status::Connected {
            self.conn = Some(conn);
        }
        if matches!(new, Status::Connected | Status::ClosedByPeer | Status::ProblemDetectedLocally)
        {
            self.tell(Saw::Status(new, reason.cloned()));
        }
        if matches!(new, Status::ClosedByPeer | Status::ProblemDetectedLocally) {
            cx.close(conn, Reason::APP.0, "", None).unwrap();
        }
    }

    fn on_dead(&mut self, _: &mut Context<'_>, _: Conn, report: &CloseReport) {
        self.channels.clear();
        self.conn = None;
        self.tell(Saw::Dead(report.clone()));
    }

    fn on_channel_request(
        &mut self,
        cx: &mut Context<'_>,
        channel: Channel,
        request: &ChannelRequest<'_>,
    ) {
        self.tell(Saw::Request(request.name.into(), request.id));
        if request.name == "no" {
            return cx.decline_channel(channel, Reason::APP_REJECTED.0, "no").unwrap();
        }
        // What came with it may have ended the connection.
        if cx.accept_channel(channel, &ChannelOptions::default()).is_err() {
            return;
        }
        self.note(channel, request.name, false);
        if self.bulk > 0 && request.name != CHATTER {
            self.begin(cx, channel);
        }
    }

    fn on_channel_ready(&mut self, cx: &mut Context<'_>, channel: Channel) {
        let Some(used) = self.channels.get(&channel).filter(|used| used.ours) else { return };
        self.tell(Saw::Ready(used.name.clone()));
        self.begin(cx, channel);
    }

    fn on_data(&mut self, cx: &mut Context<'_>, channel: Channel, bytes: &[u8]) {
        let used = self.channels.get_mut(&channel).expect("a channel that we know");
        used.received.update(bytes);
        if used.name == CHATTER {
            return;
        }
        if used.name.starts_with("bulk") {
            // More than it should be shows in the digest.
            used.missing = used.missing.saturating_sub(bytes.len());
            return self.settle(cx, channel);
        }
        let saw = Saw::Data(used.name.clone(), bytes.len());
        self.tell(saw);
        cx.send(channel, bytes).unwrap();
    }

    fn on_writable(&mut self, cx: &mut Context<'_>, channel: Channel) {
        self.pump(cx, channel);
    }

    fn on_channel_closed(&mut self, _: &mut Context<'_>, channel: Channel, end: &ChannelEnd) {
        let Some(used) = self.channels.remove(&channel) else { return };
        if used.name.starts_with("bulk") {
            assert_eq!((used.unsent, used.missing), (0, 0), "{}: {end:?}", used.name);
            let (received, sent) = (hex(used.received), hex(used.sent));
            self.tell(Saw::Bulk { name: used.name, received, sent });
        } else {
            self.tell(Saw::Closed(used.name, end.clone()));
        }
    }
}
