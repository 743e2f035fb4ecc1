//! What a pairing is and tells: its states, and the notices that items bring.

use crate::detail::{Detail, c_text};
use crate::handle::trunk_pairing;
use engine::Retained;
use engine::rendezvous::{ClientId, Notice, PairingState, Reject};
use std::ffi::{CStr, c_char};
use std::sync::Arc;

/// What a pairing is.
pub type trunk_pairing_state = u32;

/// It is to do nothing, or does not know who it is.
pub const TRUNK_PAIRING_PASSIVE: trunk_pairing_state = 0;
/// It has no connection to the event source.
pub const TRUNK_PAIRING_READY_TO_CONNECT: trunk_pairing_state = 1;
/// It is being connected.
pub const TRUNK_PAIRING_CONNECTING: trunk_pairing_state = 2;
/// Connected, without a partner.
pub const TRUNK_PAIRING_READY_TO_PAIR: trunk_pairing_state = 3;
/// The partner was not heard of lately.
pub const TRUNK_PAIRING_SEARCHING: trunk_pairing_state = 4;
/// The partner is there.
pub const TRUNK_PAIRING_INTERACTING: trunk_pairing_state = 5;

pub(crate) const fn state(state: PairingState) -> trunk_pairing_state {
    match state {
        PairingState::Passive => TRUNK_PAIRING_PASSIVE,
        PairingState::ReadyToConnect => TRUNK_PAIRING_READY_TO_CONNECT,
        PairingState::Connecting => TRUNK_PAIRING_CONNECTING,
        PairingState::ReadyToPair => TRUNK_PAIRING_READY_TO_PAIR,
        PairingState::Searching => TRUNK_PAIRING_SEARCHING,
        PairingState::Interacting => TRUNK_PAIRING_INTERACTING,
    }
}

/// Why a partner does not want us, or the event source does not let us reach it. Other values are
/// those of a later version.
pub type trunk_pairing_reject = u32;

/// The partner does not reject us.
pub const TRUNK_PAIRING_REJECT_NONE: trunk_pairing_reject = 0;
/// It has another partner.
pub const TRUNK_PAIRING_REJECT_ASSIGNED_TO_OTHER: trunk_pairing_reject = 1;
/// It is a controller that has no partner.
pub const TRUNK_PAIRING_REJECT_NOT_PAIRED: trunk_pairing_reject = 2;
/// It belongs to another application.
pub const TRUNK_PAIRING_REJECT_APP_ID_MISMATCH: trunk_pairing_reject = 3;
/// It has the same role as we have.
pub const TRUNK_PAIRING_REJECT_INVALID_PARTNER_ROLE: trunk_pairing_reject = 4;
/// For a reason that this version has no name for.
pub const TRUNK_PAIRING_REJECT_OTHER: trunk_pairing_reject = 5;

pub(crate) const fn reject(reason: Reject) -> trunk_pairing_reject {
    match reason {
        Reject::AssignedToOther => TRUNK_PAIRING_REJECT_ASSIGNED_TO_OTHER,
        Reject::NotPaired => TRUNK_PAIRING_REJECT_NOT_PAIRED,
        Reject::AppIdMismatch => TRUNK_PAIRING_REJECT_APP_ID_MISMATCH,
        Reject::InvalidPartnerRole => TRUNK_PAIRING_REJECT_INVALID_PARTNER_ROLE,
        Reject::Other(_) => TRUNK_PAIRING_REJECT_OTHER,
    }
}

/// What a pairing tells.
pub type trunk_pairing_notice_type = u32;

/// The state is another: old_state, new_state.
pub const TRUNK_NOTICE_STATE: trunk_pairing_notice_type = 0;
/// A controller has made itself our partner, or has taken that back: client, empty.
pub const TRUNK_NOTICE_PARTNER: trunk_pairing_notice_type = 1;
/// The partner does not want us: client, reject. Nothing more is sent to it until a client id or a
/// partner is assigned.
pub const TRUNK_NOTICE_REJECTED: trunk_pairing_notice_type = 2;
/// The event source has ended the connection: code, 1101 to 1106 as in docs/pairing.md. No other is
/// made until the pairing is made active, or a token or a client id is assigned.
pub const TRUNK_NOTICE_ABORTED: trunk_pairing_notice_type = 3;
/// An event of the partner's application: client, subtype, buffered, sent, received, data, size.
pub const TRUNK_NOTICE_EVENT: trunk_pairing_notice_type = 4;
/// The partner says something about routes that no connection of ours takes: client, subtype, data,
/// size.
pub const TRUNK_NOTICE_ROUTE: trunk_pairing_notice_type = 5;
/// Events that waited were for a partner that is none any more: code of them are gone.
pub const TRUNK_NOTICE_DISCARDED: trunk_pairing_notice_type = 6;

/// Of TRUNK_ITEM_PAIRING. New fields come at the end.
#[repr(C)]
#[derive(Debug)]
pub struct trunk_pairing_notice {
    /// Size of this struct as the library knows it.
    pub struct_size: u32,
    /// What happened.
    pub r#type: trunk_pairing_notice_type,
    /// The pairing.
    pub pairing: trunk_pairing,
    /// The state before.
    pub old_state: trunk_pairing_state,
    /// The state now.
    pub new_state: trunk_pairing_state,
    /// The partner that it is about; never NULL.
    pub client: *const c_char,
    /// Why it rejects us.
    pub reject: trunk_pairing_reject,
    /// As type says.
    pub code: u32,
    /// The application's own number.
    pub subtype: u32,
    /// Whether the event may have waited.
    pub buffered: u32,
    /// How many events the partner had sent in its life.
    pub sent: u64,
    /// How many of our events it had received.
    pub received: u64,
    /// The event's body.
    pub data: *const u8,
    /// Bytes of it, at most 8192.
    pub size: usize,
}

/// Of TRUNK_ITEM_RELAYED. New fields come at the end.
#[repr(C)]
#[derive(Debug)]
pub struct trunk_relayed {
    /// Size of this struct as the library knows it.
    pub struct_size: u32,
    /// 0.
    pub reserved: u32,
    /// The pairing.
    pub pairing: trunk_pairing,
    /// The packet.
    pub data: *const u8,
    /// Bytes of it.
    pub size: usize,
}

/// Of TRUNK_ITEM_PEER. New fields come at the end.
#[repr(C)]
#[derive(Debug)]
pub struct trunk_peer {
    /// Size of this struct as the library knows it.
    pub struct_size: u32,
    /// 0.
    pub reserved: u32,
    /// The pairing.
    pub pairing: trunk_pairing,
}

impl Detail {
    /// `None` for a notice that this interface has no name for.
    pub(crate) fn pairing(pairing: trunk_pairing, notice: Notice) -> Option<Self> {
        let mut told = trunk_pairing_notice {
            struct_size: size_of::<trunk_pairing_notice>() as u32,
            r#type: TRUNK_NOTICE_STATE,
            pairing,
            old_state: 0,
            new_state: 0,
            client: std::ptr::null(),
            reject: TRUNK_PAIRING_REJECT_NONE,
            code: 0,
            subtype: 0,
            buffered: 0,
            sent: 0,
            received: 0,
            data: std::ptr::null(),
            size: 0,
        };
        let mut client = None;
        let mut body: Option<Arc<[u8]>> = None;
        match notice {
            Notice::State { old, new } => {
                (told.old_state, told.new_state) = (state(old), state(new));
            }
            Notice::Partner(partner) => {
                told.r#type = TRUNK_NOTICE_PARTNER;
                client = partner;
            }
            Notice::Rejected { partner, reason } => {
                (told.r#type, told.reject) = (TRUNK_NOTICE_REJECTED, reject(reason));
                client = Some(partner);
            }
            Notice::Aborted(reason) => {
                (told.r#type, told.code) = (TRUNK_NOTICE_ABORTED, reason as u32);
            }
            Notice::Event { from, subtype, buffered, sent, received, body: bytes } => {
                told.r#type = TRUNK_NOTICE_EVENT;
                (told.subtype, told.buffered) = (subtype.into(), buffered.into());
                (told.sent, told.received) = (sent, received);
                (client, body) = (Some(from), Some(bytes));
            }
            Notice::Route { from, subtype, body: bytes } => {
                (told.r#type, told.subtype) = (TRUNK_NOTICE_ROUTE, subtype.into());
                (client, body) = (Some(from), Some(bytes));
            }
            Notice::Discarded(count) => {
                told.r#type = TRUNK_NOTICE_DISCARDED;
                told.code = u32::try_from(count).unwrap_or(u32::MAX);
            }
            _ => return None,
        }
        let client = c_text(client.as_ref().map_or("", ClientId::as_str));
        told.client = client.as_ptr();
        if let Some(bytes) = &body {
            (told.data, told.size) = (bytes.as_ptr(), bytes.len());
        }
        Some(Self::Pairing(told, (client, body)))
    }

    pub(crate) fn relayed(pairing: trunk_pairing, packet: Retained) -> Self {
        let relayed = trunk_relayed {
            struct_size: size_of::<trunk_relayed>() as u32,
            reserved: 0,
            pairing,
            data: packet.as_ptr(),
            size: packet.len(),
        };
        Self::Relayed(relayed, packet)
    }

    pub(crate) const fn peer(pairing: trunk_pairing) -> Self {
        Self::Peer(trunk_peer { struct_size: size_of::<trunk_peer>() as u32, reserved: 0, pairing })
    }
}

/// A static word for a state of a pairing, such as "interacting"; never NULL, "unknown" for other
/// values.
///
/// Any thread, never blocks.
#[unsafe(no_mangle)]
pub extern "C" fn trunk_pairing_state_str(state: trunk_pairing_state) -> *const c_char {
    let word: &CStr = match state {
        TRUNK_PAIRING_PASSIVE => c"passive",
        TRUNK_PAIRING_READY_TO_CONNECT => c"ready_to_connect",
        TRUNK_PAIRING_CONNECTING => c"connecting",
        TRUNK_PAIRING_READY_TO_PAIR => c"ready_to_pair",
        TRUNK_PAIRING_SEARCHING => c"searching",
        TRUNK_PAIRING_INTERACTING => c"interacting",
        _ => c"unknown",
    };
    word.as_ptr()
}
