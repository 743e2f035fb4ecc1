//! The sending side on the shard: opens a channel for each file, hands blocks from the readers to
//! it as fast as it takes them, and waits for the receiver's answers.

#![deny(clippy::print_stdout, clippy::print_stderr)]

use super::reader::{Job, Read, Rest};
use crate::transfer::report::Done;
use crate::transfer::wire::{AnswerIntake, Code, Digest, Header, SCHEME};
use crossbeam::channel::Sender;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use trunkline::{
    ApiError, Channel, ChannelEnd, ChannelOptions, CloseReason, CloseReport, Conn, ConnectConfig,
    Context, Duration, Handler, Payload, PeerId, Reason, SendOptions, Status,
};

/// Files that are open at once, each on its own channel.
const MAX_OPEN: usize = 64;
/// Close code of a transfer that is complete.
const CLOSE_DONE: u32 = Reason::APP.0;
/// Close code of a sender that was interrupted.
const CLOSE_INTERRUPTED: u32 = Reason::APP_MIN + 10;
/// How long the last acknowledgements may take at the end.
const LINGER: Duration = Duration::from_secs(5);

/// A file to send.
pub struct Plan {
    /// Where it is.
    pub path: PathBuf,
    /// Its name at the receiver.
    pub name: String,
    /// Bytes of it that were handed over.
    pub done: Done,
}

/// What other threads tell the handler.
pub enum Command {
    /// A reader has something.
    Read(Read),
    /// The user wants to stop.
    Interrupt,
}

/// What the handler tells the command. Files are named by their place in the list.
pub enum Update {
    /// The connection stands.
    Connected { remote: SocketAddr, peer: Option<PeerId> },
    /// A file was opened.
    Started { index: usize, bytes: u64 },
    /// The receiver has stored it.
    Stored { index: usize, digest: Digest },
    /// It was not transferred; `code` is absent when the connection ended.
    Failed { index: usize, code: Option<Code>, reason: String },
    /// The connection ended. `complete`: every file had been dealt with before.
    Closed { reason: CloseReason, by_peer: bool, complete: bool },
    /// The connection is gone for good: the last update.
    Gone,
}

/// The handler.
pub struct SendHandler {
    connect: ConnectConfig,
    files: Vec<File>,
    next: usize,
    open: usize,
    settled: usize,
    by_channel: HashMap<Channel, usize>,
    jobs: Sender<Job>,
    updates: std::sync::mpsc::Sender<Update>,
    conn: Option<Conn>,
    closing: bool,
}

struct File {
    plan: Plan,
    stage: Stage,
    channel: Option<Channel>,
    /// A block that the channel had no room for.
    blocked: Option<(Payload, Rest)>,
    digest: Option<Digest>,
    answer: AnswerIntake,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    Sending,
    /// Everything is handed over, or the receiver wants no more: its answer is due.
    Answer,
    Settled,
}

impl SendHandler {
    /// Sends `plans` over one connection.
    pub fn new(
        connect: ConnectConfig,
        plans: Vec<Plan>,
        jobs: Sender<Job>,
        updates: std::sync::mpsc::Sender<Update>,
    ) -> Self {
        let file = |plan| File {
            plan,
            stage: Stage::Waiting,
            channel: None,
            blocked: None,
            digest: None,
            answer: AnswerIntake::default(),
        };
        Self {
            connect,
            files: plans.into_iter().map(file).collect(),
            next: 0,
            open: 0,
            settled: 0,
            by_channel: HashMap::new(),
            jobs,
            updates,
            conn: None,
            closing: false,
        }
    }

    fn tell(&self, update: Update) {
        // Nobody listens any more only when the command is already ending.
        let _ = self.updates.send(update);
    }

    /// Opens files up to the limit; closes the connection after the last one.
    fn advance(&mut self, cx: &mut Context<'_>) {
        while !self.closing && self.open < MAX_OPEN && self.next < self.files.len() {
            let index = self.next;
            self.next += 1;
            self.open += 1;
            let file = &mut self.files[index];
            file.stage = Stage::Sending;
            let _ = self.jobs.send(Job::Open { index, path: file.plan.path.clone() });
        }
        if self.settled == self.files.len()
            && !self.closing
            && let Some(conn) = self.conn
        {
            self.closing = true;
            let _ = cx.close(conn, CLOSE_DONE, "done", Some(LINGER));
        }
    }

    fn on_read(&mut self, cx: &mut Context<'_>, read: Read) {
        match read {
            Read::Block { index, header, data, rest } => {
                if self.closing || self.files[index].stage != Stage::Sending {
                    return;
                }
                if let Some(header) = header
                    && let Err(e) = self.begin(cx, index, header)
                {
                    self.settle(cx, index, Err((None, e.to_string())));
                    return;
                }
                self.push(cx, index, data, rest);
            }
            Read::Failed { index, code, text } => {
                if self.files[index].stage != Stage::Sending {
                    return;
                }
                if let Some(channel) = self.files[index].channel {
                    let _ = cx.reset(channel, code.0);
                }
                self.settle(cx, index, Err((Some(code), text)));
            }
        }
    }

    /// Opens the channel and sends the header.
    fn begin(
        &mut self,
        cx: &mut Context<'_>,
        index: usize,
        header: Header,
    ) -> Result<(), ApiError> {
        let conn = self.conn.ok_or(ApiError::NoConnection("not connected"))?;
        self.tell(Update::Started { index, bytes: header.size });
        let file = &mut self.files[index];
        let name = format!("{SCHEME}{}", file.plan.name);
        let channel = cx.open_channel(conn, &name, &ChannelOptions::default())?;
        file.channel = Some(channel);
        self.by_channel.insert(channel, index);
        cx.send_with(channel, &header.encode(), OVER_LIMIT)
    }

    /// Hands a block to the channel, or keeps it until there is room.
    fn push(&mut self, cx: &mut Context<'_>, index: usize, data: Payload, rest: Rest) {
        let file = &mut self.files[index];
        let Some(channel) = file.channel else { return };
        let len = data.len() as u64;
        if len > 0 {
            match cx.send_payload(channel, data.clone(), SendOptions::default()) {
                Ok(()) => {}
                Err(ApiError::WouldBlock(_)) => {
                    file.blocked = Some((data, rest));
                    return;
                }
                Err(e) => return self.settle(cx, index, Err((None, e.to_string()))),
            }
        }
        file.plan.done.fetch_add(len, Ordering::Relaxed);
        match rest {
            Rest::More(source) => {
                let _ = self.jobs.send(Job::Next { index, source });
            }
            Rest::End(digest) => {
                file.digest = Some(digest);
                file.stage = Stage::Answer;
                let sent =
                    cx.send_with(channel, &digest, OVER_LIMIT).and_then(|()| cx.finish(channel));
                if let Err(e) = sent {
                    self.settle(cx, index, Err((None, e.to_string())));
                }
            }
        }
    }

    /// The receiver's answer is complete.
    fn judge(&mut self, cx: &mut Context<'_>, index: usize) {
        let file = &self.files[index];
        let outcome = match file.answer.finish() {
            Err(malformed) => {
                Err((Some(Code::MALFORMED), format!("the receiver's {}", malformed.0)))
            }
            Ok(answer) if answer.code != Code::STORED => {
                let text = match answer.text.as_str() {
                    "" => answer.code.to_string(),
                    text => text.to_owned(),
                };
                Err((Some(answer.code), text))
            }
            Ok(answer) => match file.digest {
                Some(ours) if ours == answer.digest => Ok(ours),
                _ => Err((
                    Some(Code::DIGEST_DIFFERS),
                    "the receiver stored something else than was sent".to_owned(),
                )),
            },
        };
        self.settle(cx, index, outcome);
    }

    fn settle(
        &mut self,
        cx: &mut Context<'_>,
        index: usize,
        outcome: Result<Digest, (Option<Code>, String)>,
    ) {
        let file = &mut self.files[index];
        if file.stage == Stage::Settled {
            return;
        }
        if file.stage != Stage::Waiting {
            self.open -= 1;
        }
        file.stage = Stage::Settled;
        file.blocked = None;
        self.settled += 1;
        self.tell(match outcome {
            Ok(digest) => Update::Stored { index, digest },
            Err((code, reason)) => Update::Failed { index, code, reason },
        });
        self.advance(cx);
    }

    fn index_of(&self, channel: Channel) -> Option<usize> {
        self.by_channel.get(&channel).copied()
    }

    fn fail_all(&mut self, reason: &str) {
        for index in 0..self.files.len() {
            if self.files[index].stage != Stage::Settled {
                self.files[index].stage = Stage::Settled;
                self.files[index].blocked = None;
                self.tell(Update::Failed { index, code: None, reason: reason.to_owned() });
            }
        }
        self.by_channel.clear();
        self.settled = self.files.len();
    }
}

/// Headers and digests are small and always taken.
const OVER_LIMIT: SendOptions = SendOptions { over_limit: true, receipt: None };

impl Handler for SendHandler {
    type Command = Command;

    fn on_start(&mut self, cx: &mut Context<'_>) {
        match cx.connect(&self.connect) {
            Ok(conn) => self.conn = Some(conn),
            Err(e) => {
                self.closing = true;
                let reason = CloseReason::new(Reason::LOCAL_NETWORK, &e.to_string());
                self.fail_all(&reason.to_string());
                self.tell(Update::Closed { reason, by_peer: false, complete: false });
                self.tell(Update::Gone);
            }
        }
    }

    fn on_command(&mut self, cx: &mut Context<'_>, command: Command) {
        match command {
            Command::Read(read) => self.on_read(cx, read),
            Command::Interrupt => {
                if let Some(conn) = self.conn
                    && !self.closing
                {
                    self.closing = true;
                    self.fail_all("interrupted");
                    let _ = cx.close(conn, CLOSE_INTERRUPTED, "the sender was interrupted", None);
                }
            }
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
        match new {
            Status::Connected => {
                if let Some(info) = cx.info(conn) {
                    self.tell(Update::Connected { remote: info.remote, peer: info.peer });
                }
                self.advance(cx);
            }
            Status::ClosedByPeer | Status::ProblemDetectedLocally => {
                let complete = self.settled == self.files.len();
                let reason = reason
                    .cloned()
                    .unwrap_or_else(|| CloseReason::new(Reason::MISC, "no reason given"));
                self.fail_all(&reason.to_string());
                self.closing = true;
                let by_peer = new == Status::ClosedByPeer;
                self.tell(Update::Closed { reason, by_peer, complete });
                let _ = cx.close(conn, CLOSE_DONE, "", None);
            }
            _ => {}
        }
    }

    fn on_dead(&mut self, _cx: &mut Context<'_>, _conn: Conn, _report: &CloseReport) {
        self.conn = None;
        self.tell(Update::Gone);
    }

    fn on_channel_closed(&mut self, cx: &mut Context<'_>, channel: Channel, end: &ChannelEnd) {
        let Some(index) = self.by_channel.remove(&channel) else { return };
        if self.files[index].stage == Stage::Settled {
            return;
        }
        let outcome = match end {
            ChannelEnd::Declined { code, text } => {
                let code = Code(*code);
                let text = if text.is_empty() { code.to_string() } else { text.clone() };
                Err((Some(code), text))
            }
            ChannelEnd::Reset { code, .. } => {
                Err((Some(Code(*code)), format!("refused: {}", Code(*code))))
            }
            ChannelEnd::TimedOut => Err((None, "the receiver did not answer".to_owned())),
            // The status of the connection follows and settles all files at once.
            ChannelEnd::Connection(_) => return,
            _ => Err((None, "the receiver ended it without an answer".to_owned())),
        };
        self.settle(cx, index, outcome);
    }

    fn on_data(&mut self, cx: &mut Context<'_>, channel: Channel, bytes: &[u8]) {
        let Some(index) = self.index_of(channel) else { return };
        if let Err(malformed) = self.files[index].answer.feed(bytes) {
            let _ = cx.stop(channel, Code::MALFORMED.0);
            let text = format!("the receiver's {}", malformed.0);
            self.settle(cx, index, Err((Some(Code::MALFORMED), text)));
        }
    }

    fn on_eof(&mut self, cx: &mut Context<'_>, channel: Channel) {
        if let Some(index) = self.index_of(channel)
            && self.files[index].stage != Stage::Settled
        {
            self.judge(cx, index);
        }
    }

    fn on_stopped(&mut self, cx: &mut Context<'_>, channel: Channel, _code: u32) {
        let Some(index) = self.index_of(channel) else { return };
        let file = &mut self.files[index];
        if file.stage == Stage::Sending {
            // The answer with the receiver's words follows.
            file.stage = Stage::Answer;
            file.blocked = None;
            let _ = cx.finish(channel);
        }
    }

    fn on_writable(&mut self, cx: &mut Context<'_>, channel: Channel) {
        if let Some(index) = self.index_of(channel)
            && let Some((data, rest)) = self.files[index].blocked.take()
        {
            self.push(cx, index, data, rest);
        }
    }
}
