//! What the shard tells the queued API: the [`Handler`]'s half of the [`QueueHandler`].

use super::cells::kind_flags;
use super::command::Command;
use super::event::Event;
use super::handler::QueueHandler;
use crate::handle::{Association, Channel, Conn, OpenRequest};
use crate::handler::{Context, Discontent, Handler, Opened, StunPacket};
use crate::sync::atomic::Ordering;
use std::net::SocketAddr;
use trunkline_proto::config::ChannelKind;
use trunkline_proto::connection::SecInfo;
use trunkline_proto::error::{CloseReason, Reason};
use trunkline_proto::event::{ChannelEnd, ChannelRequest, CloseReport, Incoming};
use trunkline_proto::ids::ChannelKey;
use trunkline_proto::manager::{AssociationEvent, RequestError, ReuseKey};
use trunkline_proto::status::Status;

impl Handler for QueueHandler {
    type Command = Command;

    fn on_incoming(&mut self, cx: &mut Context<'_>, conn: Conn, incoming: &Incoming<'_>) {
        if self.pairing_incoming(cx, conn, incoming) {
            return;
        }
        if self.writer_of(0).is_some_and(|writer| writer.is_backed_up()) {
            let _ = cx.reject(conn, Reason::APP_REJECTED.0, "the application is behind");
            return;
        }
        let Some((cell, life)) = self.link.conns.take() else {
            let _ = cx.reject(conn, Reason::APP_REJECTED.0, "too many connections");
            return;
        };
        if let Some(cell) = self.link.conns.get(cell) {
            cell.begin(Status::Connecting, 0);
        }
        self.begin_conn(cell, life);
        self.map_conn(cx, cell, conn);
        let event = Event::Incoming {
            conn: self.link.conn_name(cell, life),
            remote: incoming.remote,
            peer: incoming.peer,
            credential: incoming.credential.to_vec(),
            server_name: incoming.server_name.map(str::to_owned),
        };
        self.emit(cell, event);
    }

    fn on_status(
        &mut self,
        cx: &mut Context<'_>,
        conn: Conn,
        old: Status,
        new: Status,
        reason: Option<&CloseReason>,
    ) {
        if let Some(cell) = self.conn_cell(conn) {
            if let Some(shared) = self.link.conns.get(cell) {
                shared.set_status(new);
            }
            self.note_limits(cx, cell, conn);
            if let Some(conn) = self.conn_name(cell) {
                self.emit(cell, Event::Status { conn, old, new, reason: reason.cloned() });
            }
        }
        self.pairing_status(cx, conn, new, reason);
    }

    fn on_dead(&mut self, cx: &mut Context<'_>, conn: Conn, report: &CloseReport) {
        if let Some(cell) = self.conn_cell(conn) {
            self.end_conn(cx, cell, report);
        }
        self.pairing_dead(cx, conn);
    }

    fn on_channel_request(
        &mut self,
        cx: &mut Context<'_>,
        channel: Channel,
        request: &ChannelRequest<'_>,
    ) {
        if self.take(cx, channel, request) {
            return;
        }
        let Some(conn_cell) = self.conn_cell(channel.conn()) else { return };
        let Some(conn) = self.conn_name(conn_cell) else { return };
        if self.writer(conn_cell).is_some_and(|writer| writer.is_backed_up()) {
            let _ =
                cx.decline_channel(channel, Reason::APP_REJECTED.0, "the application is behind");
            return;
        }
        let Some((slot, life)) = self.link.channels.take() else {
            let _ = cx.decline_channel(channel, Reason::APP_REJECTED.0, "too many channels");
            return;
        };
        if let Some(cell) = self.link.channels.get(slot) {
            cell.begin(conn.to_bits(), kind_flags(request.options.kind));
        }
        self.begin_channel(cx, (slot, life), conn_cell, channel);
        let event = Event::ChannelRequest {
            channel: Channel::new(conn, ChannelKey { slot, life }),
            id: request.id,
            name: request.name.to_owned(),
            options: request.options,
        };
        self.emit(conn_cell, event);
    }

    fn on_channel_ready(&mut self, cx: &mut Context<'_>, channel: Channel) {
        self.emit_channel(channel, |channel| Event::ChannelReady { channel });
        self.pairing_ready(cx, channel);
    }

    fn on_channel_closed(&mut self, cx: &mut Context<'_>, channel: Channel, end: &ChannelEnd) {
        let Some(name) = self.channel_name(channel) else {
            return self.pairing_closed(cx, channel, end);
        };
        if let ChannelEnd::Connection(_) = end {
            self.note_lost(name.key().slot);
        }
        self.emit_channel(channel, |channel| Event::ChannelClosed { channel, end: end.clone() });
        self.end_channel(cx, name.key().slot);
    }

    fn on_data(&mut self, cx: &mut Context<'_>, channel: Channel, bytes: &[u8]) {
        let Some(name) = self.channel_name(channel) else { return };
        if self.call_with_data(cx, name, ChannelKind::Bytes, bytes) {
            return;
        }
        let kept = self.keep(cx, name, bytes);
        let Some(writer) = self.writer(name.conn().slot()) else { return };
        match kept {
            Some(kept) => writer.large(name, ChannelKind::Bytes, kept),
            None => writer.data(name, bytes),
        }
    }

    fn on_message(
        &mut self,
        cx: &mut Context<'_>,
        channel: Channel,
        kind: ChannelKind,
        message: &[u8],
    ) {
        let Some(name) = self.channel_name(channel) else {
            return self.pairing_message(cx, channel, message);
        };
        if self.call_with_data(cx, name, kind, message) {
            return;
        }
        let kept = self.keep(cx, name, message);
        let Some(writer) = self.writer(name.conn().slot()) else { return };
        match kept {
            Some(kept) => writer.large(name, kind, kept),
            None => writer.message(name, kind, message),
        }
    }

    fn on_eof(&mut self, cx: &mut Context<'_>, channel: Channel) {
        self.emit_channel(channel, |channel| Event::Eof { channel });
        self.return_credit_now(cx, channel);
        self.pairing_eof(cx, channel);
    }

    fn on_reset(&mut self, cx: &mut Context<'_>, channel: Channel, code: u32) {
        self.emit_channel(channel, |channel| Event::Reset { channel, code });
        self.return_credit_now(cx, channel);
    }

    fn on_credit_short(&mut self, cx: &mut Context<'_>, channel: Channel) {
        self.return_credit_now(cx, channel);
    }

    fn on_stopped(&mut self, _cx: &mut Context<'_>, channel: Channel, code: u32) {
        self.emit_channel(channel, |channel| Event::Stopped { channel, code });
    }

    fn on_writable(&mut self, cx: &mut Context<'_>, channel: Channel) {
        if let Some(name) = self.channel_name(channel) {
            self.send_waiting(cx, name.key().slot, false);
            self.tell_writable(name);
        } else {
            self.pairing_writable(cx, channel);
        }
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, token: u64) {
        self.pairing_timer(cx, token);
    }

    fn on_path(&mut self, cx: &mut Context<'_>, conn: Conn, remote: SocketAddr, relayed: bool) {
        self.pairing_path(cx, conn, remote, relayed);
    }

    fn on_path_failed(
        &mut self,
        cx: &mut Context<'_>,
        conn: Conn,
        socket: u16,
        remote: SocketAddr,
    ) {
        self.pairing_path_failed(cx, conn, (socket, remote));
    }

    fn on_stun(&mut self, cx: &mut Context<'_>, packet: StunPacket) {
        self.pairing_stun(cx, &packet);
    }

    fn on_receipt(&mut self, _cx: &mut Context<'_>, channel: Channel, token: u64) {
        self.emit_channel(channel, |channel| Event::Receipt { channel, token });
    }

    fn on_check_answered(&mut self, _cx: &mut Context<'_>, conn: Conn) {
        if let Some(cell) = self.conn_cell(conn)
            && let Some(conn) = self.conn_name(cell)
        {
            self.emit(cell, Event::CheckAnswered { conn });
        }
    }

    fn on_connection_begun(&mut self, cx: &mut Context<'_>, conn: Conn, key: &ReuseKey) {
        self.connection_begun(cx, conn, *key);
    }

    fn on_request_done(
        &mut self,
        cx: &mut Context<'_>,
        request: OpenRequest,
        outcome: Result<Opened, &RequestError>,
    ) {
        self.request_done(cx, request, outcome);
    }

    fn on_association(
        &mut self,
        cx: &mut Context<'_>,
        association: Association,
        event: &AssociationEvent,
    ) {
        self.association_event(cx, association, event);
    }

    fn on_association_message(
        &mut self,
        cx: &mut Context<'_>,
        association: Association,
        message: &[u8],
        _info: &SecInfo,
    ) -> Result<(), Discontent> {
        if let Some(channel) = cx.association_channel(association) {
            self.on_message(cx, channel, ChannelKind::Messages, message);
        }
        Ok(())
    }

    #[inline]
    fn on_command(&mut self, cx: &mut Context<'_>, command: Command) {
        match command {
            Command::Small { cell, life, len, bytes } => {
                let bytes = bytes.get(..usize::from(len)).unwrap_or_default();
                self.send(cx, (cell, life), bytes, None);
            }
            Command::Data { cell, life, data, receipt, copied } => {
                self.send_data(cx, (cell, life), data, receipt, copied);
            }
            Command::Many(pack) => self.send_many(cx, pack),
            Command::Finish { cell, life } => self.finish(cx, cell, life),
            Command::Flush { cell, life } => {
                if let Ok(real) = self.real_channel(cell, life) {
                    let _ = cx.flush(real);
                }
            }
            Command::Call(call) => call(self, cx),
            Command::Poke => {}
        }
    }

    fn on_batch_end(&mut self, cx: &mut Context<'_>) {
        self.settle();
        self.service(cx);
        self.tell_all_events(cx);
        for writer in &mut self.writers {
            writer.hand_over();
        }
    }

    fn on_shutdown(&mut self, cx: &mut Context<'_>, lingers: bool) {
        self.end_pairings(cx);
        for cell in 0..self.conns.len() as u32 {
            self.send_all_waiting(cx, cell, lingers);
        }
    }

    fn report_as(&self, conn: Conn, report: &mut CloseReport) -> Conn {
        let Some(cell) = self.conn_cell(conn) else { return conn };
        self.count_waiting(cell, report);
        self.conn_name(cell).unwrap_or(conn)
    }

    fn waiting_bytes(&self) -> u64 {
        self.link.waiting_bytes.load(Ordering::Relaxed)
    }
}
