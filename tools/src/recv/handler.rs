//! The receiving side on the shard: decides which senders and files are taken, takes the file
//! channels apart, hands bytes to the writers and answers.

#![deny(clippy::print_stdout, clippy::print_stderr)]

use super::writer::{Job, WriterQueues, Written};
use crate::transfer::names;
use crate::transfer::report::Done;
use crate::transfer::wire::{Answer, Code, DIGEST_LEN, Digest, HEADER_LEN, Intake, Piece, SCHEME};
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use trunkline::{
    Channel, ChannelEnd, ChannelKind, ChannelOptions, ChannelRequest, CloseReason, CloseReport,
    Conn, Context, Handler, Incoming, PeerId, Reason, SendOptions, Status,
};

/// Files that arrive at once, from all senders together.
const MAX_FILES: usize = 256;
/// Bytes collected before they go to a writer in one piece.
const BLOCK: usize = 256 * 1024;
/// Close code of a sender that is not on the list.
const NOT_ALLOWED: u32 = Reason::APP_MIN + 11;
/// Close code of a receiver that is going away.
const INTERRUPTED: u32 = Reason::APP_MIN + 10;

/// Which senders and how much.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Fingerprints that may send; empty = anybody.
    pub allow: Vec<PeerId>,
    /// Most bytes in all.
    pub max_bytes: Option<u64>,
    /// Taken names get an alternative, so two files of one name may arrive at once.
    pub rename: bool,
}

/// What other threads tell the handler.
pub enum Command {
    /// A writer has something.
    Written(Written),
    /// Take no new senders; [`Update::Drained`] when no file is arriving any more.
    Drain,
    /// The user wants to stop at once.
    Interrupt,
}

/// What the handler tells the command.
pub enum Update {
    /// A sender is there.
    Connected { remote: SocketAddr, peer: Option<PeerId> },
    /// A sender was turned away.
    Refused { remote: SocketAddr, peer: Option<PeerId>, reason: &'static str },
    /// A file begins.
    Started { id: u64, name: String, bytes: u64, done: Done },
    /// It has its final name.
    Stored { id: u64, digest: Digest, path: PathBuf },
    /// It has not and will not; `code` is absent when its connection ended.
    Failed { id: u64, name: String, code: Option<Code>, reason: String },
    /// A sender has gone and all its files are settled. `offered`: files it asked to send;
    /// `broken`: those that were cut off.
    Ended { remote: SocketAddr, reason: CloseReason, by_peer: bool, offered: usize, broken: usize },
    /// After [`Command::Drain`]: no file is arriving.
    Drained,
    /// After [`Command::Interrupt`]: this many files were cut off.
    Interrupted { broken: usize },
}

/// The handler.
pub struct RecvHandler {
    policy: Policy,
    writers: WriterQueues,
    updates: Sender<Update>,
    senders: HashMap<Conn, Peer>,
    files: HashMap<Channel, File>,
    by_id: HashMap<u64, Channel>,
    names: HashSet<String>,
    /// Channels with bytes that are not with a writer yet.
    unflushed: Vec<Channel>,
    next_id: u64,
    /// Bytes of files stored or arriving, by their stated size.
    accepted_bytes: u64,
    draining: bool,
}

struct Peer {
    remote: SocketAddr,
    offered: usize,
    unsettled: usize,
    broken: usize,
    end: Option<(CloseReason, bool)>,
}

struct File {
    id: u64,
    name: String,
    intake: Intake,
    reserved: u64,
    block: Vec<u8>,
    digest: Option<Digest>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Arriving,
    /// Everything is with the writer.
    Finishing,
    Settled,
}

impl RecvHandler {
    /// A receiver without senders yet.
    pub fn new(policy: Policy, writers: WriterQueues, updates: Sender<Update>) -> Self {
        Self {
            policy,
            writers,
            updates,
            senders: HashMap::new(),
            files: HashMap::new(),
            by_id: HashMap::new(),
            names: HashSet::new(),
            unflushed: Vec::new(),
            next_id: 0,
            accepted_bytes: 0,
            draining: false,
        }
    }

    fn tell(&self, update: Update) {
        // Nobody listens any more only when the command is already ending.
        let _ = self.updates.send(update);
    }

    /// Why a requested channel is not taken.
    fn judge_request(&self, request: &ChannelRequest<'_>) -> Result<String, (Code, &'static str)> {
        if request.options.kind != ChannelKind::Bytes {
            return Err((Code::NAME_REFUSED, "a file needs a channel of bytes"));
        }
        let name = request
            .name
            .strip_prefix(SCHEME)
            .ok_or((Code::NAME_REFUSED, "only files are taken here"))?;
        names::check(name).map_err(|why| (Code::NAME_REFUSED, why))?;
        if self.draining {
            return Err((Code::INTERRUPTED, "the receiver is about to end"));
        }
        if self.by_id.len() >= MAX_FILES {
            return Err((Code::TOO_MANY, "too many files at once"));
        }
        if !self.policy.rename && self.names.contains(name) {
            return Err((Code::EXISTS, "a file of that name is arriving already"));
        }
        Ok(name.to_owned())
    }

    /// Takes bytes of a file channel apart. The error ends the file.
    fn take(
        &mut self,
        cx: &mut Context<'_>,
        channel: Channel,
        mut bytes: &[u8],
    ) -> Result<(), (Code, String)> {
        let Some(file) = self.files.get_mut(&channel) else { return Ok(()) };
        while let Some(piece) = file
            .intake
            .feed(&mut bytes)
            .map_err(|malformed| (Code::MALFORMED, malformed.0.to_owned()))?
        {
            match piece {
                Piece::Header(header) => {
                    let _ = cx.consume(channel, HEADER_LEN as u64);
                    let left =
                        self.policy.max_bytes.map(|max| max.saturating_sub(self.accepted_bytes));
                    if left.is_some_and(|left| header.size > left) {
                        let text = "more than the receiver takes in all (--max-bytes)";
                        return Err((Code::TOO_LARGE, text.to_owned()));
                    }
                    file.reserved = header.size;
                    self.accepted_bytes = self.accepted_bytes.saturating_add(header.size);
                    let done = Done::default();
                    let (id, name) = (file.id, file.name.clone());
                    let update =
                        Update::Started { id, name, bytes: header.size, done: done.clone() };
                    let _ = self.updates.send(update);
                    let name = file.name.clone();
                    self.writers.submit(id, Job::Start { id, name, header, done });
                }
                Piece::Data(data) => {
                    if file.block.is_empty() {
                        file.block = self.writers.block();
                        file.block.clear();
                        self.unflushed.push(channel);
                    }
                    file.block.extend_from_slice(data);
                    if file.block.len() >= BLOCK {
                        flush(&self.writers, file);
                    }
                }
                Piece::Digest(digest) => {
                    let _ = cx.consume(channel, DIGEST_LEN as u64);
                    file.digest = Some(digest);
                }
            }
        }
        Ok(())
    }

    /// Answers and ends a file that was not stored.
    fn refuse(&mut self, cx: &mut Context<'_>, channel: Channel, code: Code, text: String) {
        let _ = cx.stop(channel, code.0);
        answer(cx, channel, Answer { code, digest: [0; DIGEST_LEN], text: text.clone() });
        self.abandon(channel, Some(code), &text, false);
    }

    /// Lets go of a file that is not settled. `broken`: its connection was cut off.
    fn abandon(&mut self, channel: Channel, code: Option<Code>, reason: &str, broken: bool) {
        let Some(file) = self.files.get_mut(&channel) else { return };
        if file.stage == Stage::Settled {
            return;
        }
        let id = file.id;
        self.writers.submit(id, Job::Abandon { id });
        let name = file.name.clone();
        self.tell(Update::Failed { id, name, code, reason: reason.to_owned() });
        self.settle(channel, false, broken);
    }

    fn settle(&mut self, channel: Channel, stored: bool, broken: bool) {
        let Some(file) = self.files.get_mut(&channel) else { return };
        file.stage = Stage::Settled;
        file.block = Vec::new();
        self.by_id.remove(&file.id);
        self.names.remove(&file.name);
        if !stored {
            self.accepted_bytes = self.accepted_bytes.saturating_sub(file.reserved);
        }
        let conn = channel.conn();
        if let Some(peer) = self.senders.get_mut(&conn) {
            peer.unsettled -= 1;
            peer.broken += usize::from(broken);
        }
        self.end_if_over(conn);
    }

    /// Reports a sender that has gone once nothing of it is left.
    fn end_if_over(&mut self, conn: Conn) {
        if let Some(peer) = self.senders.get_mut(&conn)
            && peer.unsettled == 0
            && let Some((reason, by_peer)) = peer.end.take()
        {
            let (remote, offered, broken) = (peer.remote, peer.offered, peer.broken);
            self.senders.remove(&conn);
            self.files.retain(|channel, _| channel.conn() != conn);
            self.tell(Update::Ended { remote, reason, by_peer, offered, broken });
        }
        if self.draining && self.by_id.is_empty() {
            self.tell(Update::Drained);
        }
    }

    fn on_written(&mut self, cx: &mut Context<'_>, written: Written) {
        match written {
            Written::Taken { id, bytes } => {
                if let Some(channel) = self.by_id.get(&id) {
                    let _ = cx.consume(*channel, bytes);
                }
            }
            Written::Stored { id, digest, path } => {
                let Some(channel) = self.by_id.get(&id).copied() else { return };
                let stored = Answer { code: Code::STORED, digest, text: String::new() };
                answer(cx, channel, stored);
                self.tell(Update::Stored { id, digest, path });
                self.settle(channel, true, false);
            }
            Written::Failed { id, code, digest, text } => {
                let Some(channel) = self.by_id.get(&id).copied() else { return };
                let _ = cx.stop(channel, code.0);
                answer(cx, channel, Answer { code, digest, text: text.clone() });
                let name = self.files.get(&channel).map(|f| f.name.clone()).unwrap_or_default();
                self.tell(Update::Failed { id, name, code: Some(code), reason: text });
                self.settle(channel, false, false);
            }
        }
    }

    /// The connection cannot deliver any more; files whose bytes are all here may still finish.
    fn lost(&mut self, conn: Conn, reason: CloseReason, by_peer: bool) {
        let words = if by_peer {
            format!("the sender closed the connection: {reason}")
        } else {
            format!("the connection was lost: {reason}")
        };
        if let Some(peer) = self.senders.get_mut(&conn) {
            peer.end = Some((reason, by_peer));
        }
        let arriving: Vec<Channel> = self
            .files
            .iter()
            .filter(|(c, f)| c.conn() == conn && f.stage == Stage::Arriving)
            .map(|(c, _)| *c)
            .collect();
        for channel in arriving {
            self.abandon(channel, None, &words, true);
        }
        self.end_if_over(conn);
    }

    fn interrupt(&mut self, cx: &mut Context<'_>) {
        self.draining = true;
        for conn in self.senders.keys() {
            let _ = cx.close(*conn, INTERRUPTED, "the receiver was interrupted", None);
        }
        let broken: Vec<Channel> = self.by_id.values().copied().collect();
        for channel in &broken {
            self.abandon(*channel, None, "interrupted", false);
        }
        self.tell(Update::Interrupted { broken: broken.len() });
    }
}

fn flush(writers: &WriterQueues, file: &mut File) {
    if !file.block.is_empty() {
        let bytes = std::mem::take(&mut file.block);
        writers.submit(file.id, Job::Data { id: file.id, bytes });
    }
}

/// Answers are small and always taken.
fn answer(cx: &mut Context<'_>, channel: Channel, answer: Answer) {
    let over_limit = SendOptions { over_limit: true, receipt: None };
    let _ = cx.send_with(channel, &answer.encode(), over_limit);
    let _ = cx.finish(channel);
}

impl Handler for RecvHandler {
    type Command = Command;

    fn on_command(&mut self, cx: &mut Context<'_>, command: Command) {
        match command {
            Command::Written(written) => self.on_written(cx, written),
            Command::Drain => {
                self.draining = true;
                if self.by_id.is_empty() {
                    self.tell(Update::Drained);
                }
            }
            Command::Interrupt => self.interrupt(cx),
        }
    }

    fn on_incoming(&mut self, cx: &mut Context<'_>, conn: Conn, incoming: &Incoming<'_>) {
        let (remote, peer) = (incoming.remote, incoming.peer);
        let allowed = self.policy.allow.is_empty()
            || peer.is_some_and(|peer| self.policy.allow.contains(&peer));
        let refused = match (allowed, self.draining) {
            (false, _) => Some("this sender is not on the receiver's list (--allow)"),
            (true, true) => Some("the receiver is about to end"),
            (true, false) => None,
        };
        if let Some(reason) = refused {
            let _ = cx.reject(conn, NOT_ALLOWED, reason);
            self.tell(Update::Refused { remote, peer, reason });
            return;
        }
        if cx.accept(conn).is_ok() {
            let peer_state = Peer { remote, offered: 0, unsettled: 0, broken: 0, end: None };
            self.senders.insert(conn, peer_state);
            self.tell(Update::Connected { remote, peer });
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
        if matches!(new, Status::ClosedByPeer | Status::ProblemDetectedLocally) {
            let none = || CloseReason::new(Reason::MISC, "no reason given");
            self.lost(conn, reason.cloned().unwrap_or_else(none), new == Status::ClosedByPeer);
            let _ = cx.close(conn, Reason::APP.0, "", None);
        }
    }

    fn on_dead(&mut self, _cx: &mut Context<'_>, conn: Conn, report: &CloseReport) {
        if self.senders.get(&conn).is_some_and(|peer| peer.end.is_none()) {
            self.lost(conn, report.reason.clone(), false);
        }
    }

    fn on_channel_request(
        &mut self,
        cx: &mut Context<'_>,
        channel: Channel,
        request: &ChannelRequest<'_>,
    ) {
        let conn = channel.conn();
        let Some(peer) = self.senders.get_mut(&conn) else { return };
        peer.offered += 1;
        let id = self.next_id;
        self.next_id += 1;
        match self.judge_request(request) {
            Ok(name) => {
                if cx.accept_channel(channel, &ChannelOptions::default()).is_err() {
                    return;
                }
                if let Some(peer) = self.senders.get_mut(&conn) {
                    peer.unsettled += 1;
                }
                self.by_id.insert(id, channel);
                self.names.insert(name.clone());
                let file = File {
                    id,
                    name,
                    intake: Intake::new(),
                    reserved: 0,
                    block: Vec::new(),
                    digest: None,
                    stage: Stage::Arriving,
                };
                self.files.insert(channel, file);
            }
            Err((code, text)) => {
                let _ = cx.decline_channel(channel, code.0, text);
                let name = request.name.strip_prefix(SCHEME).unwrap_or(request.name).to_owned();
                let reason = text.to_owned();
                self.tell(Update::Failed { id, name, code: Some(code), reason });
            }
        }
    }

    fn on_data(&mut self, cx: &mut Context<'_>, channel: Channel, bytes: &[u8]) {
        if self.files.get(&channel).is_none_or(|f| f.stage != Stage::Arriving) {
            let _ = cx.consume(channel, bytes.len() as u64);
        } else if let Err((code, text)) = self.take(cx, channel, bytes) {
            self.refuse(cx, channel, code, text);
        }
    }

    fn on_eof(&mut self, cx: &mut Context<'_>, channel: Channel) {
        let Some(file) = self.files.get_mut(&channel) else { return };
        if file.stage != Stage::Arriving {
            return;
        }
        match file.digest {
            Some(digest) if file.intake.is_complete() => {
                flush(&self.writers, file);
                file.stage = Stage::Finishing;
                self.writers.submit(file.id, Job::Finish { id: file.id, digest });
            }
            _ => {
                let text = "the file ended before its digest".to_owned();
                self.refuse(cx, channel, Code::MALFORMED, text);
            }
        }
    }

    fn on_reset(&mut self, cx: &mut Context<'_>, channel: Channel, code: u32) {
        let code = Code(code);
        self.abandon(channel, Some(code), &format!("the sender gave up: {code}"), false);
        let _ = cx.finish(channel);
    }

    fn on_channel_closed(&mut self, _cx: &mut Context<'_>, channel: Channel, end: &ChannelEnd) {
        // When the connection ended, its status follows and settles all files at once.
        let finishing = self.files.get(&channel).is_some_and(|f| f.stage == Stage::Finishing);
        if !finishing && !matches!(end, ChannelEnd::Connection(_)) {
            self.abandon(channel, None, "the channel ended before the file", false);
            self.files.remove(&channel);
        }
    }

    fn on_batch_end(&mut self, _cx: &mut Context<'_>) {
        for channel in self.unflushed.drain(..) {
            if let Some(file) = self.files.get_mut(&channel) {
                flush(&self.writers, file);
            }
        }
    }
}
