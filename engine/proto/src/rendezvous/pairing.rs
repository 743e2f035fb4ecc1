//! A client's pairing with one other client (design, behaviours §2).
//!
//! It sends nothing and reads no clock: every call takes the time, and what is to be done is taken
//! from [`Pairing::poll`] afterwards, in order, until there is nothing left. Call
//! [`Pairing::handle_timeout`] when [`Pairing::next_timeout`] has passed.
//!
//! The rules are data in [`state`](self): the state is a function of what is so now, never of the
//! way there, so that no order of calls, events and notices leads to a state that does not fit.

mod config;
mod follow;
mod queue;
mod state;

pub use config::PairingConfig;
pub use state::{
    EVENT_RULES, EventRule, Inputs, PairingState, PartnerView, Reaction, STATE_RULES, Sender,
    SourceLink, StateRule, pings_at_once, reaction, state_of,
};

use super::event::{Abort, Event, EventRef, EventType, Reject};
use super::names::{ClientId, PairingRole};
use super::token::AccessToken;
use crate::error::ApiError;
use crate::limits::MAX_EVENT_BODY;
use crate::time::{Duration, Instant};
use config::Backoff;
use queue::EventQueue;
use std::collections::VecDeque;
use std::sync::Arc;

/// What is to be done, or told to the application.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Output {
    /// Make a connection to an event source with this credential, and open its channel; then call
    /// [`Pairing::connection_open`], or one of those that say that it ended.
    Connect {
        /// Who we are.
        client: ClientId,
        /// What allows it.
        token: AccessToken,
        /// Our part.
        role: PairingRole,
    },
    /// Close the connection, delivering first what was sent. Nothing is to be told about it any
    /// more.
    Disconnect,
    /// Send this on the connection's channel.
    Send(Event),
    /// Tell the application.
    Notice(Notice),
}

/// What the application learns.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Notice {
    /// The state is another.
    State {
        /// Before.
        old: PairingState,
        /// Now.
        new: PairingState,
    },
    /// A controller has made itself our partner, or has taken that back.
    Partner(Option<ClientId>),
    /// The partner does not want us, or the event source does not let us reach it. Nothing more is
    /// sent to it until a client id or a partner is assigned.
    Rejected {
        /// The partner.
        partner: ClientId,
        /// Why.
        reason: Reject,
    },
    /// The event source has ended the connection. No other is made until the client is activated,
    /// or a token or a client id is assigned.
    Aborted(Abort),
    /// An event of the partner's application.
    Event {
        /// The partner.
        from: ClientId,
        /// The application's own number.
        subtype: u16,
        /// It may have waited.
        buffered: bool,
        /// How many events the partner had sent in its life.
        sent: u64,
        /// How many of our events it had received.
        received: u64,
        /// At most [`MAX_EVENT_BODY`] bytes.
        body: Arc<[u8]>,
    },
    /// The partner says something about routes to it.
    Route {
        /// The partner.
        from: ClientId,
        /// The users' own number.
        subtype: u16,
        /// At most [`MAX_EVENT_BODY`] bytes.
        body: Arc<[u8]>,
    },
    /// So many events that waited were for a partner that is none any more: they are gone.
    Discarded(usize),
}

/// What became of an event of the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It was sent.
    Now,
    /// It waits for a partner or for its turn.
    Queued,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Partner {
    id: ClientId,
    rejected: Option<Reject>,
    heard: Option<Instant>,
    inactive: bool,
    /// It made itself our partner.
    adopted: bool,
    /// When anything was last sent to it.
    last_sent: Option<Instant>,
    /// Our send count when it was assigned: older pings were for another life of this pairing.
    sent_before: u64,
    received: u64,
}

/// The machine. See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pairing {
    config: PairingConfig,
    role: PairingRole,
    active: bool,
    client: Option<ClientId>,
    token: Option<AccessToken>,
    /// The token came after the attempt to connect that is under way.
    token_is_newer: bool,
    link: SourceLink,
    aborted: bool,
    partner: Option<Partner>,
    /// A partner that was taken away while it could not be told.
    untold: Option<ClientId>,
    state: PairingState,
    sent: u64,
    /// Before this, no event of the application is sent.
    event_at: Option<Instant>,
    queue: EventQueue,
    backoff: Backoff,
    out: VecDeque<Output>,
}

impl Pairing {
    /// A pairing that is passive: not active, without client id, token and partner.
    ///
    /// # Errors
    /// [`ApiError::InvalidArgument`] names a setting that is out of range.
    pub fn new(role: PairingRole, config: PairingConfig) -> Result<Self, ApiError> {
        config.validate()?;
        let backoff = Backoff::new(config.backoff_seed);
        Ok(Self {
            config,
            role,
            active: false,
            client: None,
            token: None,
            token_is_newer: false,
            link: SourceLink::Closed,
            aborted: false,
            partner: None,
            untold: None,
            state: PairingState::Passive,
            sent: 0,
            event_at: None,
            queue: EventQueue::default(),
            backoff,
            out: VecDeque::new(),
        })
    }

    /// Our part.
    pub const fn role(&self) -> PairingRole {
        self.role
    }

    /// The state, as of the last call that took the time.
    pub const fn state(&self) -> PairingState {
        self.state
    }

    /// Who we are.
    pub const fn client(&self) -> Option<&ClientId> {
        self.client.as_ref()
    }

    /// The client that is assigned as partner, whether or not it rejected us.
    pub fn partner(&self) -> Option<&ClientId> {
        self.partner.as_ref().map(|p| &p.id)
    }

    /// Why the partner rejected us, if it did.
    pub fn rejected(&self) -> Option<Reject> {
        self.partner.as_ref().and_then(|p| p.rejected)
    }

    /// Events that wait.
    pub fn waiting_events(&self) -> usize {
        self.queue.len()
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// The client is visible and running, or is not. Going passive tells the partner.
    pub fn set_active(&mut self, now: Instant, active: bool) {
        if active && !self.active {
            self.may_connect_again();
        }
        if !active && self.state.is_paired() {
            self.tell_partner(now, EventType::Inactive);
        }
        self.active = active;
        self.update(now);
    }

    /// Gives the client another id, or takes it away. The partner of before learns of it from the
    /// old id; the new one makes a connection of its own. Assigning the same id again only forgets
    /// a rejection and an abort.
    ///
    /// # Errors
    /// [`ApiError::InvalidArgument`]: it is the partner's.
    pub fn assign_client_id(
        &mut self,
        now: Instant,
        client: Option<ClientId>,
    ) -> Result<(), ApiError> {
        if client.is_some() && client.as_ref() == self.partner() {
            return Err(own_partner());
        }
        self.may_connect_again();
        if client != self.client {
            if self.state.is_paired() {
                // A controller under another name is another controller: only when it is told so
                // does its responder take the new one.
                let unassign = self.role == PairingRole::Controller && client.is_some();
                let farewell = if unassign { EventType::Unassign } else { EventType::Inactive };
                self.tell_partner(now, farewell);
            }
            self.disconnect();
            self.untold = None;
            self.client = client;
            if let Some(partner) = &mut self.partner {
                let adopted = partner.adopted;
                *partner = Partner { adopted, ..Partner::new(partner.id.clone(), self.sent) };
            }
        } else if let Some(partner) = &mut self.partner
            && partner.rejected.take().is_some()
        {
            partner.sent_before = self.sent;
        }
        self.update(now);
        Ok(())
    }

    /// Gives the client another token for its next connection, or takes it away, which also ends
    /// the connection.
    pub fn assign_access_token(&mut self, now: Instant, token: Option<AccessToken>) {
        self.may_connect_again();
        self.token_is_newer = token.is_some() && self.link != SourceLink::Closed;
        if token.is_none() {
            if self.state.is_paired() {
                self.tell_partner(now, EventType::Inactive);
            }
            self.disconnect();
        }
        self.token = token;
        self.update(now);
    }

    /// Gives the client another partner, or takes it away. Assigning the one that it has changes
    /// nothing, not even when it has rejected us.
    ///
    /// # Errors
    /// [`ApiError::InvalidArgument`]: it is the client itself.
    pub fn assign_partner(
        &mut self,
        now: Instant,
        partner: Option<ClientId>,
    ) -> Result<(), ApiError> {
        if partner.is_some() && partner == self.client {
            return Err(own_partner());
        }
        if partner.as_ref() == self.partner() {
            return Ok(());
        }
        if let Some(old) = &self.partner
            && self.role == PairingRole::Controller
            && old.rejected.is_none()
        {
            if self.state.is_paired() {
                self.tell_partner(now, EventType::Unassign);
            } else if old.last_sent.is_some() {
                self.untold = Some(old.id.clone());
            }
        }
        self.drop_partner();
        // Through ready_to_pair, so that the new partner is pinged at once.
        self.update(now);
        if let Some(id) = partner {
            self.untold.take_if(|untold| *untold == id);
            self.partner = Some(Partner::new(id, self.sent));
            self.update(now);
        }
        Ok(())
    }

    /// Sends an event of the application to the partner. A `buffered` one waits while there is no
    /// partner, or while the last event is too short a time ago.
    ///
    /// # Errors
    /// [`ApiError::MessageTooLarge`]; and, of events that are not `buffered`,
    /// [`ApiError::NoConnection`] while not paired and [`ApiError::Dropped`] when it is too soon;
    /// of those that are, [`ApiError::WouldBlock`] when too many wait.
    pub fn send(
        &mut self,
        now: Instant,
        subtype: u16,
        body: &[u8],
        buffered: bool,
    ) -> Result<Sent, ApiError> {
        check_body(body)?;
        let paired = self.state.is_paired();
        if paired && self.queue.is_empty() && self.event_at.is_none_or(|at| at <= now) {
            self.send_application(now, subtype, body.into(), buffered);
            return Ok(Sent::Now);
        }
        if buffered {
            let partner = self.partner().cloned();
            self.queue.push(&self.config, subtype, body, partner)?;
            return Ok(Sent::Queued);
        }
        Err(if paired {
            ApiError::Dropped("too soon after the last event")
        } else {
            ApiError::NoConnection("not paired")
        })
    }

    /// Tells the partner something about routes to us. Not limited in rate as events of the
    /// application are.
    ///
    /// # Errors
    /// [`ApiError::MessageTooLarge`], or [`ApiError::NoConnection`] while not paired.
    pub fn send_route(&mut self, now: Instant, subtype: u16, body: &[u8]) -> Result<(), ApiError> {
        check_body(body)?;
        match &self.partner {
            Some(partner) if self.state.is_paired() => {
                let to = partner.id.clone();
                self.emit(now, EventType::Route, subtype, to, false, body.into());
                Ok(())
            }
            _ => Err(ApiError::NoConnection("not paired")),
        }
    }

    /// The connection that was asked for stands, and its channel is open.
    pub fn connection_open(&mut self, now: Instant) {
        if self.link == SourceLink::Opening {
            self.link = SourceLink::Open;
            self.backoff.opened(now);
            self.update(now);
        }
    }

    /// The connection that was asked for could not be made, or was lost. Another is asked for
    /// after a pause.
    pub fn connection_closed(&mut self, now: Instant) {
        if self.link != SourceLink::Closed {
            self.link = SourceLink::Closed;
            self.backoff.ended(now, &self.config);
            self.update(now);
        }
    }

    /// The event source has ended the connection, or did not accept it.
    pub fn connection_aborted(&mut self, now: Instant, reason: Abort) {
        if self.link == SourceLink::Closed {
            return;
        }
        self.link = SourceLink::Closed;
        // What was wrong with the old token says nothing about a new one.
        let newer = self.token_is_newer
            && !matches!(reason, Abort::ReleasedByOther | Abort::ClientNotAlive);
        if newer {
            self.backoff.ended(now, &self.config);
        } else {
            self.aborted = true;
            self.out.push_back(Output::Notice(Notice::Aborted(reason)));
        }
        self.update(now);
    }

    /// An event arrived on the connection's channel.
    pub fn receive(&mut self, now: Instant, event: &EventRef<'_>) {
        self.update(now);
        let for_us = self.client.as_ref().is_some_and(|c| c.as_str() == event.to);
        let from_us = self.client.as_ref().is_some_and(|c| c.as_str() == event.from);
        if !for_us || from_us {
            return;
        }
        let sender = match &self.partner {
            None => Sender::Anybody,
            Some(partner) if partner.id.as_str() != event.from => Sender::Stranger,
            Some(partner) if partner.rejected.is_some() => Sender::Rejecter,
            Some(_) => Sender::Partner,
        };
        match reaction(self.state, self.role, event.kind, sender, event.role) {
            Reaction::Ignore => {}
            Reaction::Hear => self.hear(now),
            Reaction::Deliver => self.deliver(now, event),
            Reaction::Lose => {
                if let Some(partner) = &mut self.partner {
                    partner.inactive = true;
                    partner.received += 1;
                }
            }
            Reaction::Drop => {
                self.drop_partner();
                self.out.push_back(Output::Notice(Notice::Partner(None)));
            }
            Reaction::Adopt => self.adopt(now, event),
            Reaction::Leave => self.leave(event),
            Reaction::Answer(reason) => self.reject(event, reason),
        }
        self.update(now);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.update(now);
        if self.ping_at().is_some_and(|at| at <= now) {
            self.tell_partner(now, EventType::Ping);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has to be called; a moment that has passed means at
    /// once.
    pub fn next_timeout(&self) -> Option<Instant> {
        let limit = match &self.partner {
            Some(partner) if self.state == PairingState::Interacting => {
                partner.heard.map(|at| at + self.config.partner_limit)
            }
            _ => None,
        };
        let event = self.event_at.filter(|_| self.state.is_paired() && !self.queue.is_empty());
        let retry = self.backoff.retry_at().filter(|_| self.wants_connection());
        [self.ping_at(), limit, event, retry].into_iter().flatten().min()
    }
}

impl Partner {
    const fn new(id: ClientId, sent: u64) -> Self {
        Self {
            id,
            rejected: None,
            heard: None,
            inactive: false,
            adopted: false,
            last_sent: None,
            sent_before: sent,
            received: 0,
        }
    }

    fn view(&self, now: Instant, limit: Duration) -> PartnerView {
        if self.rejected.is_some() {
            PartnerView::Unusable
        } else if self.inactive || self.heard.is_none_or(|at| now.since(at) >= limit) {
            PartnerView::Silent
        } else {
            PartnerView::Heard
        }
    }
}

fn own_partner() -> ApiError {
    ApiError::InvalidArgument { field: "partner", why: "must be another client" }
}

fn check_body(body: &[u8]) -> Result<(), ApiError> {
    if body.len() > MAX_EVENT_BODY {
        return Err(ApiError::MessageTooLarge { len: body.len(), limit: MAX_EVENT_BODY });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
