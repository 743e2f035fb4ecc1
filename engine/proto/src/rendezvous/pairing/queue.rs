//! Events of the application that wait: for a partner, or for their turn.

use super::config::PairingConfig;
use crate::error::ApiError;
use crate::rendezvous::names::ClientId;
use std::collections::VecDeque;
use std::sync::Arc;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Waiting {
    pub(super) subtype: u16,
    pub(super) body: Arc<[u8]>,
    /// Whom it is for; `None` = whoever is the next partner.
    partner: Option<ClientId>,
}

/// A bounded queue, first in, first out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct EventQueue {
    events: VecDeque<Waiting>,
    bytes: usize,
}

impl EventQueue {
    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    pub(super) fn push(
        &mut self,
        config: &PairingConfig,
        subtype: u16,
        body: &[u8],
        partner: Option<ClientId>,
    ) -> Result<(), ApiError> {
        if self.events.len() >= config.queue_events || self.bytes + body.len() > config.queue_bytes
        {
            return Err(ApiError::WouldBlock("the queue of events"));
        }
        self.bytes += body.len();
        self.events.push_back(Waiting { subtype, body: body.into(), partner });
        Ok(())
    }

    pub(super) fn pop(&mut self) -> Option<Waiting> {
        let event = self.events.pop_front()?;
        self.bytes -= event.body.len();
        Some(event)
    }

    /// Throws away what is for `partner`; how many events that was.
    pub(super) fn discard(&mut self, partner: &ClientId) -> usize {
        let before = self.events.len();
        self.events.retain(|event| event.partner.as_ref() != Some(partner));
        self.bytes = self.events.iter().map(|event| event.body.len()).sum();
        before - self.events.len()
    }
}
