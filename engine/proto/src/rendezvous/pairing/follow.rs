//! What follows from calls, events and time: the state brought up to date, and what is sent and told.

use super::state::{Inputs, PairingState, PartnerView, SourceLink, pings_at_once, state_of};
use super::{Notice, Output, Pairing, Partner};
use crate::rendezvous::event::{Event, EventRef, EventType, Reject};
use crate::rendezvous::names::ClientId;
use crate::time::{Duration, Instant};
use std::sync::Arc;

impl Pairing {
    pub(super) fn may_connect_again(&mut self) {
        self.aborted = false;
        self.backoff.reset();
    }

    pub(super) fn wants_connection(&self) -> bool {
        self.active
            && self.client.is_some()
            && self.token.is_some()
            && !self.aborted
            && self.link == SourceLink::Closed
    }

    pub(super) fn disconnect(&mut self) {
        if self.link != SourceLink::Closed {
            self.link = SourceLink::Closed;
            self.token_is_newer = false;
            self.out.push_back(Output::Disconnect);
        }
    }

    pub(super) fn drop_partner(&mut self) {
        let Some(old) = self.partner.take() else { return };
        let gone = self.queue.discard(&old.id);
        if gone > 0 {
            self.out.push_back(Output::Notice(Notice::Discarded(gone)));
        }
    }

    /// Brings the state up to date, and does what follows from it.
    pub(super) fn update(&mut self, now: Instant) {
        let limit = self.config.partner_limit;
        let inputs = Inputs {
            active: self.active && self.client.is_some(),
            link: self.link,
            partner: self.partner.as_ref().map_or(PartnerView::Unusable, |p| p.view(now, limit)),
        };
        let (old, new) = (self.state, state_of(inputs));
        if old != new {
            self.state = new;
            self.out.push_back(Output::Notice(Notice::State { old, new }));
            if pings_at_once(old, new) {
                self.tell_partner(now, EventType::Ping);
            }
        }
        if new == PairingState::Passive {
            self.disconnect();
        }
        if new.is_connected()
            && let Some(untold) = self.untold.take()
        {
            self.emit(now, EventType::Unassign, 0, untold, false, [].into());
        }
        while new.is_paired()
            && self.event_at.is_none_or(|at| at <= now)
            && let Some(event) = self.queue.pop()
        {
            self.send_application(now, event.subtype, event.body, true);
        }
        self.connect(now);
    }

    pub(super) fn connect(&mut self, now: Instant) {
        if !self.wants_connection() || !self.backoff.is_over(now) {
            return;
        }
        let (Some(client), Some(token)) = (self.client.clone(), self.token.clone()) else { return };
        self.token_is_newer = false;
        self.link = SourceLink::Opening;
        self.out.push_back(Output::Connect { client, token, role: self.role });
        self.update(now);
    }

    pub(super) fn ping_at(&self) -> Option<Instant> {
        if !self.state.is_paired() {
            return None;
        }
        let interval = self.config.ping_interval(self.state == PairingState::Interacting);
        let last = self.partner.as_ref()?.last_sent;
        Some(last.map_or(Instant::ZERO, |at| at + interval))
    }

    pub(super) fn hear(&mut self, now: Instant) {
        if let Some(partner) = &mut self.partner {
            partner.heard = Some(now);
            partner.inactive = false;
            partner.received += 1;
        }
    }

    pub(super) fn deliver(&mut self, now: Instant, event: &EventRef<'_>) {
        self.hear(now);
        // The state goes first: an event never comes from a partner that is not interacting.
        self.update(now);
        let Some(from) = self.partner().cloned() else { return };
        let (subtype, body) = (event.subtype, event.body.into());
        self.out.push_back(Output::Notice(if event.kind == EventType::Route {
            Notice::Route { from, subtype, body }
        } else {
            let EventRef { buffered, sent, received, .. } = *event;
            Notice::Event { from, subtype, buffered, sent, received, body }
        }));
    }

    pub(super) fn adopt(&mut self, now: Instant, event: &EventRef<'_>) {
        let Ok(id) = ClientId::new(event.from) else { return };
        self.partner = Some(Partner { adopted: true, ..Partner::new(id.clone(), self.sent) });
        self.hear(now);
        self.out.push_back(Output::Notice(Notice::Partner(Some(id))));
    }

    pub(super) fn leave(&mut self, event: &EventRef<'_>) {
        let Some(partner) = &mut self.partner else { return };
        // An answer to a ping of an earlier assignment says nothing about this one.
        if event.received <= partner.sent_before || event.received > self.sent {
            return;
        }
        let reason = Reject::from_wire(event.subtype);
        partner.rejected = Some(reason);
        partner.heard = None;
        let (id, adopted) = (partner.id.clone(), partner.adopted);
        self.out.push_back(Output::Notice(Notice::Rejected { partner: id, reason }));
        if adopted {
            // Nobody here asked for it: the next controller is welcome.
            self.drop_partner();
            self.out.push_back(Output::Notice(Notice::Partner(None)));
        }
    }

    pub(super) fn reject(&mut self, event: &EventRef<'_>, reason: Reject) {
        let Ok(to) = ClientId::new(event.from) else { return };
        self.sent += 1;
        self.out.push_back(Output::Send(Event {
            kind: EventType::Reject,
            subtype: reason.to_wire(),
            from: self.client.clone(),
            to,
            role: Some(self.role),
            sent: self.sent,
            received: event.sent,
            buffered: false,
            body: [].into(),
        }));
    }

    pub(super) fn tell_partner(&mut self, now: Instant, kind: EventType) {
        if let Some(partner) = &self.partner {
            let to = partner.id.clone();
            self.emit(now, kind, 0, to, false, [].into());
        }
    }

    pub(super) fn send_application(
        &mut self,
        now: Instant,
        subtype: u16,
        body: Arc<[u8]>,
        buffered: bool,
    ) {
        let Some(partner) = &self.partner else { return };
        let to = partner.id.clone();
        self.emit(now, EventType::Application, subtype, to, buffered, body);
        let interval = self.config.event_interval;
        self.event_at = (interval > Duration::ZERO).then(|| now + interval);
    }

    pub(super) fn emit(
        &mut self,
        now: Instant,
        kind: EventType,
        subtype: u16,
        to: ClientId,
        buffered: bool,
        body: Arc<[u8]>,
    ) {
        self.sent += 1;
        let mut received = 0;
        // Only what goes to the partner restarts the interval: pings of strangers, which are
        // answered, must not keep ours back.
        if let Some(partner) = self.partner.as_mut().filter(|p| p.id == to) {
            partner.last_sent = Some(now);
            received = partner.received;
        }
        self.out.push_back(Output::Send(Event {
            kind,
            subtype,
            from: self.client.clone(),
            to,
            role: Some(self.role),
            sent: self.sent,
            received,
            buffered,
            body,
        }));
    }
}
