//! The handler's calls, and what happens when one panics.
//!
//! The endpoint is never in the middle of anything while a handler runs, so a panic leaves it
//! whole: the shard drops the handler, ends every connection with INTERNAL and goes on sending
//! until its peers know.

use super::context::{Context, Source};
use super::core::{Core, NO_SOCKET};
use super::log::{Entry, EventLog, Place, Rare, Span};
use crate::handle::{Association, Channel, Conn, OpenRequest};
use crate::handler::{Discontent, Handler, Opened};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use trunkline_proto::error::{CloseReason, Reason};
use trunkline_proto::event::{ChannelRequest, CloseReport, Incoming};
use trunkline_proto::ids::ConnHandle;
use trunkline_proto::manager::{AssociationId, Notice};

/// The handler, until it panics.
pub(crate) struct HandlerSlot<H> {
    handler: Option<H>,
    started: bool,
    failure: Option<String>,
}

impl<H: Handler> HandlerSlot<H> {
    pub(crate) const fn new(handler: H) -> Self {
        Self { handler: Some(handler), started: false, failure: None }
    }

    pub(crate) const fn get(&mut self) -> Option<&mut H> {
        self.handler.as_mut()
    }

    /// What the handler said when it panicked.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    pub(crate) fn report_as(&self, conn: Conn, report: &mut CloseReport) -> Conn {
        self.handler.as_ref().map_or(conn, |h| h.report_as(conn, report))
    }

    pub(crate) fn waiting_bytes(&self) -> u64 {
        self.handler.as_ref().map_or(0, Handler::waiting_bytes)
    }

    /// The first call, once. Returns the number of calls made.
    pub(crate) fn start(&mut self, core: &mut Core) -> u64 {
        if self.started {
            return 0;
        }
        self.started = true;
        self.call(core, Source::NONE, H::on_start);
        1
    }

    /// One call.
    pub(crate) fn call(
        &mut self,
        core: &mut Core,
        source: Source<'_>,
        f: impl FnOnce(&mut H, &mut Context<'_>),
    ) {
        let Some(handler) = &mut self.handler else { return };
        let run = AssertUnwindSafe(|| f(handler, &mut Context::new(core, source)));
        if let Err(panic) = catch_unwind(run) {
            self.fail(core, &*panic);
        }
    }

    /// One call for each of what `next` gives.
    pub(crate) fn call_each<T>(
        &mut self,
        core: &mut Core,
        mut next: impl FnMut() -> Option<T>,
        mut f: impl FnMut(&mut H, &mut Context<'_>, T),
    ) {
        let Some(handler) = &mut self.handler else {
            while next().is_some() {}
            return;
        };
        let run = AssertUnwindSafe(|| {
            while let Some(item) = next() {
                f(handler, &mut Context::new(core, Source::NONE), item);
            }
        });
        if let Err(panic) = catch_unwind(run) {
            self.fail(core, &*panic);
        }
    }

    /// Tells the handler everything in the log; `buffer` and `source` are where its bytes are.
    pub(crate) fn deliver(&mut self, core: &mut Core, buffer: &[u8], source: Source<'_>) -> u64 {
        if core.log.is_empty() {
            return 0;
        }
        let mut log = std::mem::take(&mut core.log);
        let mut entries = std::mem::take(&mut log.entries);
        let count = entries.len() as u64;
        core.counters.events.add(count);
        let mut rest = entries.drain(..);
        loop {
            let run = AssertUnwindSafe(|| {
                for entry in rest.by_ref() {
                    dispatch(core, self.handler.as_mut(), entry, &log, buffer, source);
                }
            });
            match catch_unwind(run) {
                Ok(()) => break,
                Err(panic) => self.fail(core, &*panic),
            }
        }
        drop(rest);
        log.entries = entries;
        log.clear();
        core.log = log;
        count
    }

    #[cold]
    fn fail(&mut self, core: &mut Core, panic: &(dyn Any + Send)) {
        let message = panic_text(panic);
        tracing::error!(shard = core.shard, message, "handler panicked; ending its connections");
        core.shared.note_failure(core.shard, message);
        self.failure.get_or_insert_with(|| message.to_owned());
        let handler = self.handler.take();
        // Its destructor may panic as well.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(handler)));
        core.unlisten_all();
        core.manager.stop(core.now);
        let reason = CloseReason::new(Reason::INTERNAL, "the application failed");
        core.endpoint.close_all(core.now, &reason, None);
    }
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[inline]
fn dispatch<H: Handler>(
    core: &mut Core,
    handler: Option<&mut H>,
    entry: Entry,
    log: &EventLog,
    buffer: &[u8],
    source: Source<'_>,
) {
    let (conn, event) = match entry {
        Entry::Rare { conn, event } => (conn, event),
        common => {
            if let Some(handler) = handler.filter(|_| !core.is_closed(common.conn())) {
                dispatch_common(core, handler, common, log, buffer, source);
            }
            return;
        }
    };
    dispatch_rare(core, handler, conn, *event);
}

#[inline]
fn dispatch_common<H: Handler>(
    core: &mut Core,
    handler: &mut H,
    entry: Entry,
    log: &EventLog,
    buffer: &[u8],
    source: Source<'_>,
) {
    let name = |core: &Core, conn, key| Channel::new(core.conn(conn), key);
    match entry {
        Entry::Data { conn, channel, span } => {
            let channel = name(core, conn, channel);
            let source = source_of(span, log, source);
            handler.on_data(&mut Context::new(core, source), channel, log.bytes(span, buffer));
        }
        Entry::Message { conn, channel, kind, span } => {
            if let Some(id) = core.manager.association_of(conn, channel) {
                let source = source_of(span, log, source);
                association_message(core, handler, (id, conn), log.bytes(span, buffer), source);
                return;
            }
            let channel = name(core, conn, channel);
            let cx = &mut Context::new(core, source_of(span, log, source));
            handler.on_message(cx, channel, kind, log.bytes(span, buffer));
        }
        Entry::Ready { conn, channel } => {
            let channel = name(core, conn, channel);
            handler.on_channel_ready(&mut Context::new(core, source), channel);
        }
        Entry::Eof { conn, channel } => {
            let channel = name(core, conn, channel);
            handler.on_eof(&mut Context::new(core, source), channel);
        }
        Entry::Writable { conn, channel } => {
            let channel = name(core, conn, channel);
            handler.on_writable(&mut Context::new(core, source), channel);
        }
        Entry::CreditShort { conn, channel } => {
            let channel = name(core, conn, channel);
            handler.on_credit_short(&mut Context::new(core, source), channel);
        }
        Entry::Reset { conn, channel, code } => {
            let channel = name(core, conn, channel);
            handler.on_reset(&mut Context::new(core, source), channel, code);
        }
        Entry::Stopped { conn, channel, code } => {
            let channel = name(core, conn, channel);
            handler.on_stopped(&mut Context::new(core, source), channel, code);
        }
        Entry::Receipt { conn, channel, token } => {
            let channel = name(core, conn, channel);
            handler.on_receipt(&mut Context::new(core, source), channel, token);
        }
        Entry::Checked { conn } => {
            let conn = core.conn(conn);
            handler.on_check_answered(&mut Context::new(core, source), conn);
        }
        Entry::Rare { .. } => {}
    }
}

/// A message of an association, whose handler may refuse to go on with its connection.
fn association_message<H: Handler>(
    core: &mut Core,
    handler: &mut H,
    (id, conn): (AssociationId, ConnHandle),
    message: &[u8],
    source: Source<'_>,
) {
    let Some(info) = core.endpoint.sec_info(conn) else { return };
    let association = Association::new(core.shard, id);
    let cx = &mut Context::new(core, source);
    let content = handler.on_association_message(cx, association, message, &info);
    if let Err(Discontent { code, text }) = content {
        tracing::debug!(?association, code, text, "the handler is not content");
        // Already closed by the handler itself: that is as good.
        let _ = core.endpoint.close(core.now, conn, code, &text, None);
    }
}

/// Something of the manager's own.
fn dispatch_notice<H: Handler>(core: &mut Core, handler: Option<&mut H>, notice: &Notice) {
    if let Notice::Begun { .. } = notice {
        core.counters.connections_opened.add(1);
    }
    let Some(handler) = handler else { return };
    let shard = core.shard;
    let cx = &mut Context::new(core, Source::NONE);
    match notice {
        Notice::Begun { conn, key } => {
            handler.on_connection_begun(cx, Conn::new(shard, *conn), key);
        }
        Notice::Request { request, outcome } => {
            let request = OpenRequest::new(shard, *request);
            match outcome {
                Ok(opened) => {
                    let channel = Channel::new(Conn::new(shard, opened.conn), opened.channel);
                    let opened = Opened { channel, joined: opened.joined };
                    handler.on_request_done(cx, request, Ok(opened));
                }
                Err(error) => handler.on_request_done(cx, request, Err(error)),
            }
        }
        Notice::Association { association, event } => {
            handler.on_association(cx, Association::new(shard, *association), event);
        }
        _ => {}
    }
}

fn source_of<'a>(span: Span, log: &'a EventLog, source: Source<'a>) -> Source<'a> {
    match span.place {
        Place::Buffer => source,
        Place::Arena => Source::NONE,
        Place::Owned => Source { owned: log.block(span), ..Source::NONE },
    }
}

/// Events with a body. The shard's own books are kept whether or not the handler still listens.
fn dispatch_rare<H: Handler>(
    core: &mut Core,
    handler: Option<&mut H>,
    handle: ConnHandle,
    mut event: Rare,
) {
    let conn = core.conn(handle);
    match &mut event {
        Rare::Dead(report) => {
            let name = handler.as_ref().map_or(conn, |h| h.report_as(conn, report));
            core.note_dead(handle, name, report);
            tracing::debug!(?conn, reason = %report.reason, "connection is gone");
            if let Some(handler) = handler {
                handler.on_dead(&mut Context::new(core, Source::NONE), conn, report);
            }
            return;
        }
        Rare::Notice(notice) => return dispatch_notice(core, handler, notice),
        Rare::Incoming { socket, remote, peer, .. } => {
            // The listening sockets of streams have numbers of their own.
            let is_stream = core.streams.contains(handle);
            core.note_accepted(handle, if is_stream { NO_SOCKET } else { *socket });
            tracing::debug!(?conn, %remote, ?peer, "incoming connection");
        }
        Rare::Status { old, new, reason } => {
            tracing::debug!(
                ?conn,
                ?old,
                ?new,
                reason = reason.as_ref().map(tracing::field::display),
                "status"
            );
        }
        _ => {}
    }
    let Some(handler) = handler.filter(|_| !core.is_closed(handle)) else { return };
    let cx = &mut Context::new(core, Source::NONE);
    match &event {
        Rare::Status { old, new, reason } => {
            handler.on_status(cx, conn, *old, *new, reason.as_ref());
        }
        Rare::Incoming { remote, peer, credential, server_name, .. } => {
            let incoming = Incoming {
                remote: *remote,
                peer: *peer,
                credential,
                server_name: server_name.as_deref(),
            };
            handler.on_incoming(cx, conn, &incoming);
        }
        Rare::Path { remote, relayed } => handler.on_path(cx, conn, *remote, *relayed),
        Rare::PathFailed { socket, remote } => handler.on_path_failed(cx, conn, *socket, *remote),
        Rare::Superseded { by } => {
            let by = cx.conn(*by);
            handler.on_superseded(cx, conn, by);
        }
        Rare::Request { channel, id, name, options } => {
            let request = ChannelRequest { id: *id, name, options: *options };
            handler.on_channel_request(cx, Channel::new(conn, *channel), &request);
        }
        Rare::Closed { channel, end } => {
            handler.on_channel_closed(cx, Channel::new(conn, *channel), end);
        }
        Rare::Dead(_) | Rare::Notice(_) => {}
    }
}
