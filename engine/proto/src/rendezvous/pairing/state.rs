//! The rules of a pairing as data: its states, what an event does, when a ping goes out
//! (design, behaviours §2). `docs/states.md` is printed from here.

use crate::rendezvous::event::{EventType, Reject};
use crate::rendezvous::names::PairingRole;
use core::fmt;

/// What a pairing is to its user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum PairingState {
    /// The client is not active, or has no id.
    Passive = 0,
    /// Not connected to an event source, and no attempt is under way.
    ReadyToConnect = 1,
    /// A connection to an event source is being made.
    Connecting = 2,
    /// Connected, without a partner that could be used.
    ReadyToPair = 3,
    /// Has a partner that is silent or inactive.
    Searching = 4,
    /// Has a partner that was heard within the limit.
    Interacting = 5,
}

impl PairingState {
    /// All states.
    pub const ALL: [Self; 6] = [
        Self::Passive,
        Self::ReadyToConnect,
        Self::Connecting,
        Self::ReadyToPair,
        Self::Searching,
        Self::Interacting,
    ];

    /// All but passive.
    pub const fn is_active(self) -> bool {
        !matches!(self, Self::Passive)
    }

    /// The event source can be reached: ready to pair, searching, interacting.
    pub const fn is_connected(self) -> bool {
        matches!(self, Self::ReadyToPair | Self::Searching | Self::Interacting)
    }

    /// There is a partner that has not rejected us: searching, interacting.
    pub const fn is_paired(self) -> bool {
        matches!(self, Self::Searching | Self::Interacting)
    }

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Passive => "passive",
            Self::ReadyToConnect => "ready_to_connect",
            Self::Connecting => "connecting",
            Self::ReadyToPair => "ready_to_pair",
            Self::Searching => "searching",
            Self::Interacting => "interacting",
        }
    }
}

impl fmt::Display for PairingState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The connection to the event source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SourceLink {
    /// There is none.
    Closed,
    /// It is being made.
    Opening,
    /// It stands, and its channel is open.
    Open,
}

impl SourceLink {
    /// All values.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Opening, Self::Open];
}

/// What is known of the partner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PartnerView {
    /// Nobody is assigned, or whoever is has rejected us.
    Unusable,
    /// Not heard within the limit, or said to be inactive.
    Silent,
    /// Heard within the limit and not inactive since.
    Heard,
}

impl PartnerView {
    /// All values.
    pub const ALL: [Self; 3] = [Self::Unusable, Self::Silent, Self::Heard];
}

/// Everything that the state depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Inputs {
    /// The client is active and has an id.
    pub active: bool,
    /// The connection to the event source.
    pub link: SourceLink,
    /// The partner.
    pub partner: PartnerView,
}

/// One rule for the state; `None` means that it makes no difference.
#[derive(Clone, Copy, Debug)]
pub struct StateRule {
    /// As [`Inputs::active`].
    pub active: Option<bool>,
    /// As [`Inputs::link`].
    pub link: Option<SourceLink>,
    /// As [`Inputs::partner`].
    pub partner: Option<PartnerView>,
    /// The state.
    pub state: PairingState,
}

/// The first rule that fits decides.
pub const STATE_RULES: [StateRule; 6] = [
    rule(Some(false), None, None, PairingState::Passive),
    rule(None, Some(SourceLink::Open), Some(PartnerView::Heard), PairingState::Interacting),
    rule(None, Some(SourceLink::Open), Some(PartnerView::Silent), PairingState::Searching),
    rule(None, Some(SourceLink::Open), None, PairingState::ReadyToPair),
    rule(None, Some(SourceLink::Opening), None, PairingState::Connecting),
    rule(None, None, None, PairingState::ReadyToConnect),
];

const fn rule(
    active: Option<bool>,
    link: Option<SourceLink>,
    partner: Option<PartnerView>,
    state: PairingState,
) -> StateRule {
    StateRule { active, link, partner, state }
}

/// The state: a function of the inputs and nothing else.
pub fn state_of(inputs: Inputs) -> PairingState {
    STATE_RULES
        .iter()
        .find(|rule| {
            rule.active.is_none_or(|active| active == inputs.active)
                && rule.link.is_none_or(|link| link == inputs.link)
                && rule.partner.is_none_or(|partner| partner == inputs.partner)
        })
        .map_or(PairingState::ReadyToConnect, |rule| rule.state)
}

/// Whether a ping goes out at once when one state follows another; in all other cases the interval
/// of the new state counts from the last event that was sent to the partner.
pub const fn pings_at_once(old: PairingState, new: PairingState) -> bool {
    match new {
        PairingState::Interacting => !matches!(old, PairingState::Interacting),
        PairingState::Searching => !old.is_paired(),
        _ => false,
    }
}

/// Who sent an event, as its receiver sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sender {
    /// The partner.
    Partner,
    /// The client that is assigned as partner and has rejected us.
    Rejecter,
    /// Somebody else than the client that is assigned as partner.
    Stranger,
    /// Somebody, while nobody is assigned as partner.
    Anybody,
}

impl Sender {
    /// All values.
    pub const ALL: [Self; 4] = [Self::Partner, Self::Rejecter, Self::Stranger, Self::Anybody];
}

/// What an event does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reaction {
    /// Nothing, in silence.
    Ignore,
    /// The partner was heard.
    Hear,
    /// The partner was heard, and the application gets the event.
    Deliver,
    /// The partner is inactive: searching.
    Lose,
    /// The partner is no longer assigned.
    Drop,
    /// The sender becomes the partner, and was heard.
    Adopt,
    /// The partner has rejected us: no longer paired, no more pings.
    Leave,
    /// A `reject` goes back to the sender.
    Answer(Reject),
}

/// One rule for events; `None` means that it makes no difference.
#[derive(Clone, Copy, Debug)]
pub struct EventRule {
    /// Type of the event.
    pub kind: EventType,
    /// Who sent it.
    pub sender: Sender,
    /// Our role.
    pub role: Option<PairingRole>,
    /// The sender's role.
    pub sender_role: Option<PairingRole>,
    /// What it does.
    pub reaction: Reaction,
}

/// What events do in ready_to_pair, searching and interacting: the first rule that fits decides,
/// and an event that none fits is ignored. In all other states every event is ignored.
pub const EVENT_RULES: [EventRule; 10] = [
    event(EventType::Ping, Sender::Partner, Reaction::Hear),
    event(EventType::Application, Sender::Partner, Reaction::Deliver),
    event(EventType::Route, Sender::Partner, Reaction::Deliver),
    event(EventType::Inactive, Sender::Partner, Reaction::Lose),
    event(EventType::Unassign, Sender::Partner, Reaction::Drop),
    event(EventType::Unassign, Sender::Rejecter, Reaction::Drop),
    event(EventType::Reject, Sender::Partner, Reaction::Leave),
    event(EventType::Ping, Sender::Stranger, Reaction::Answer(Reject::AssignedToOther)),
    EventRule {
        kind: EventType::Ping,
        sender: Sender::Anybody,
        role: Some(PairingRole::Controller),
        sender_role: None,
        reaction: Reaction::Answer(Reject::NotPaired),
    },
    EventRule {
        kind: EventType::Ping,
        sender: Sender::Anybody,
        role: Some(PairingRole::Responder),
        sender_role: Some(PairingRole::Controller),
        reaction: Reaction::Adopt,
    },
];

const fn event(kind: EventType, sender: Sender, reaction: Reaction) -> EventRule {
    EventRule { kind, sender, role: None, sender_role: None, reaction }
}

/// What an event does to a pairing in `state`.
pub fn reaction(
    state: PairingState,
    role: PairingRole,
    kind: EventType,
    sender: Sender,
    sender_role: Option<PairingRole>,
) -> Reaction {
    if !state.is_connected() {
        return Reaction::Ignore;
    }
    EVENT_RULES
        .iter()
        .find(|rule| {
            rule.kind == kind
                && rule.sender == sender
                && rule.role.is_none_or(|r| r == role)
                && (rule.sender_role.is_none() || rule.sender_role == sender_role)
        })
        .map_or(Reaction::Ignore, |rule| rule.reaction)
}
