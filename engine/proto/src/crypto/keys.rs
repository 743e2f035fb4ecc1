//! 1-RTT packet keys: sealing, opening and key update (RFC 9001 §5 and §6).
//!
//! What is guaranteed here:
//! - a packet number is sealed at most once, whatever the caller does, so nonces never repeat: the
//!   number must rise from call to call, and every update brings a new key and IV;
//! - an update starts only when the peer has acknowledged a packet of the current phase and the
//!   keys before it are gone, and always before the cipher's confidentiality limit;
//! - a packet that fails to open changes nothing but the count that is held against the cipher's
//!   integrity limit, and derives keys at most once per phase, however many are forged.

use crate::error::PeerMisbehaved;
use crate::limits::{SHORT_HEADER_LEN, TAG_LEN};
use crate::observe::Tap;
use crate::place::Place;
use crate::time::{Duration, Instant};
use core::fmt;
use rustls::quic::{Keys, PacketKey, PacketKeySet, Secrets};

/// Why a packet could not be sealed. The connection must end: nothing may be sent unsealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The packet number is not higher than the last one; a caller's error.
    #[error("packet number used before")]
    PacketNumber,
    /// The buffer is shorter than header and tag; a caller's error.
    #[error("packet too short to seal")]
    TooShort,
    /// The cipher's confidentiality limit is reached and the peer acknowledged nothing that would
    /// allow an update (RFC 9001 §6.6).
    #[error("confidentiality limit of the cipher reached")]
    Exhausted,
}

/// Why a packet could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Not sealed by the peer with a key that we still have; drop it, nothing changed.
    #[error("packet could not be authenticated")]
    Forged,
    /// The peer (or the number of forgeries) broke a rule that ends the connection.
    #[error(transparent)]
    Misbehaved(#[from] PeerMisbehaved),
}

/// A packet that was sealed by the peer.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened<'a> {
    /// The frames.
    pub payload: &'a mut [u8],
    /// The packet is the first one of a key update that the peer began; our keys followed.
    pub peer_updated: bool,
}

/// The receive key of the phase before, for packets that were under way during an update.
struct Previous {
    remote: Box<dyn PacketKey>,
    /// Set once the peer has used the current phase.
    drop_at: Option<Instant>,
}

/// The packet keys of an established connection, both directions.
///
/// Memory between updates: 176 bytes, two boxed packet keys of about 576 bytes each (AES-128-GCM in
/// *ring*) and 176 bytes of boxed secrets. A third key exists for three probe timeouts after an
/// update, a pair of further ones from the first packet that asks for the next phase on.
pub struct DataKeys {
    local: Box<dyn PacketKey>,
    remote: Box<dyn PacketKey>,
    phase: bool,
    /// Packets sealed in the current phase.
    sealed: u64,
    update_after: u64,
    /// Lowest packet number that may be sealed next.
    next_pn: u64,
    /// First packet number sealed in the current phase.
    first_sent: Option<u64>,
    largest_acked: Option<u64>,
    /// Lowest packet number opened in the current phase; `u64::MAX` = none.
    first_opened: u64,
    /// One more than the highest packet number opened in the current phase; 0 = none.
    opened_end: u64,
    /// The same for all phases before: a packet of the current phase must not lie below.
    older_end: u64,
    failed: u64,
    updates: u64,
    retain: Duration,
    /// Receive key of the phase before.
    previous: Option<Box<Previous>>,
    /// Keys of the phase after, derived when a packet first asks for them.
    next: Option<Box<PacketKeySet>>,
    secrets: Box<Secrets>,
    tap: Option<Box<Tap>>,
}

impl DataKeys {
    /// Where the keys for what the peer sends lie, and those for what is sent to it.
    pub(crate) fn places(&self) -> (Place, Place) {
        (Place::of(&*self.remote), Place::of(&*self.local))
    }

    /// Takes over what TLS derived. The header-protection keys are dropped: packet numbers are not
    /// masked.
    pub fn from_tls(keys: Keys, next: Secrets) -> Self {
        let Keys { local, remote } = keys;
        let update_after = local.packet.confidentiality_limit() / 2;
        Self {
            local: local.packet,
            remote: remote.packet,
            phase: false,
            sealed: 0,
            update_after,
            next_pn: 0,
            first_sent: None,
            largest_acked: None,
            first_opened: u64::MAX,
            opened_end: 0,
            older_end: 0,
            failed: 0,
            updates: 0,
            retain: Duration::from_secs(3),
            previous: None,
            next: None,
            secrets: Box::new(next),
            tap: None,
        }
    }

    /// Updates the keys after this many packets instead of half the confidentiality limit, which
    /// stays the upper bound.
    pub fn set_update_after(&mut self, packets: u64) {
        self.update_after = packets.clamp(1, self.local.confidentiality_limit() / 2);
    }

    /// Tells the current probe timeout; previous keys live three times as long (RFC 9001 §6.5).
    pub fn set_pto(&mut self, pto: Duration) {
        self.retain = pto.mul(3);
    }

    /// Shows every packet to an observer.
    pub(crate) fn observe(&mut self, tap: Option<Tap>) {
        self.tap = tap.map(Box::new);
    }

    /// The key-phase bit for the next packet's header. Valid until the next [`Self::seal`],
    /// [`Self::open`] or [`Self::update`].
    #[inline]
    pub const fn key_phase(&self) -> bool {
        self.phase
    }

    /// Seals `packet` in place: 13 bytes of header (already written, with [`Self::key_phase`]),
    /// the payload, and 16 bytes of room for the tag. Updates the keys for the packets after it
    /// when that is due and allowed.
    ///
    /// # Errors
    /// See [`SealError`]; the packet must not be sent then.
    #[inline]
    pub fn seal(&mut self, pn: u64, packet: &mut [u8]) -> Result<(), SealError> {
        if pn < self.next_pn || pn == u64::MAX {
            return Err(SealError::PacketNumber);
        }
        if self.sealed >= self.update_after {
            self.seal_is_due()?;
        }
        let payload_end = packet.len().checked_sub(TAG_LEN).ok_or(SealError::TooShort)?;
        let (body, tag_room) = packet.split_at_mut(payload_end);
        let (header, payload) =
            body.split_at_mut_checked(SHORT_HEADER_LEN).ok_or(SealError::TooShort)?;
        if let Some(tap) = &self.tap {
            tap.sealed(pn, header, payload);
        }
        let tag =
            self.local.encrypt_in_place(pn, header, payload).map_err(|_| SealError::TooShort)?;
        tag_room.copy_from_slice(tag.as_ref());
        self.next_pn = pn + 1;
        self.sealed += 1;
        if self.first_sent.is_none() {
            self.first_sent = Some(pn);
        }
        if self.sealed >= self.update_after {
            self.update();
        }
        Ok(())
    }

    #[cold]
    fn seal_is_due(&mut self) -> Result<(), SealError> {
        if self.sealed >= self.local.confidentiality_limit() {
            return Err(SealError::Exhausted);
        }
        Ok(())
    }

    /// Opens `packet` (header, sealed payload, tag) in place. `phase` is the key-phase bit of its
    /// header and `pn` its full packet number, which the caller has found to be new.
    ///
    /// # Errors
    /// [`OpenError::Forged`] for everything that is not authentic; the contents of `packet` are
    /// then unspecified.
    #[inline]
    pub fn open<'a>(
        &mut self,
        now: Instant,
        pn: u64,
        phase: bool,
        packet: &'a mut [u8],
    ) -> Result<Opened<'a>, OpenError> {
        if self.tap.is_some() {
            return self.open_and_show(now, pn, phase, packet);
        }
        self.open_with_any(now, pn, phase, packet)
    }

    /// [`Self::open`] with an observer.
    #[cold]
    fn open_and_show<'a>(
        &mut self,
        now: Instant,
        pn: u64,
        phase: bool,
        packet: &'a mut [u8],
    ) -> Result<Opened<'a>, OpenError> {
        let header = packet.first_chunk::<SHORT_HEADER_LEN>().copied();
        let opened = self.open_with_any(now, pn, phase, packet)?;
        if let (Some(tap), Some(header)) = (&self.tap, header) {
            tap.opened(pn, &header, opened.payload);
        }
        Ok(opened)
    }

    #[inline]
    fn open_with_any<'a>(
        &mut self,
        now: Instant,
        pn: u64,
        phase: bool,
        packet: &'a mut [u8],
    ) -> Result<Opened<'a>, OpenError> {
        if packet.len() < SHORT_HEADER_LEN + TAG_LEN {
            return Err(OpenError::Forged);
        }
        if self.previous.is_some() {
            self.expire(now);
        }
        if phase != self.phase {
            return self.open_other_phase(now, pn, packet);
        }
        let Some(payload) = decrypt(self.remote.as_ref(), pn, packet) else {
            return Err(self.failed_one());
        };
        if pn < self.older_end {
            return Err(PeerMisbehaved::KeyUpdate.into());
        }
        self.opened_current(pn);
        if let Some(previous) = &mut self.previous
            && previous.drop_at.is_none()
        {
            previous.drop_at = Some(now + self.retain);
        }
        Ok(Opened { payload, peer_updated: false })
    }

    fn opened_current(&mut self, pn: u64) {
        self.first_opened = self.first_opened.min(pn);
        self.opened_end = self.opened_end.max(pn.saturating_add(1));
    }

    /// The phase bit differs: the packet belongs to the phase before or after, which its number
    /// decides (RFC 9001 §6.5).
    #[cold]
    fn open_other_phase<'a>(
        &mut self,
        now: Instant,
        pn: u64,
        packet: &'a mut [u8],
    ) -> Result<Opened<'a>, OpenError> {
        if pn < self.first_opened {
            let Some(previous) = &self.previous else { return Err(OpenError::Forged) };
            let Some(payload) = decrypt(previous.remote.as_ref(), pn, packet) else {
                return Err(self.failed_one());
            };
            self.older_end = self.older_end.max(pn.saturating_add(1));
            return Ok(Opened { payload, peer_updated: false });
        }
        // A failed opening destroys the packet; a copy tells an old key used too late from a
        // forgery, and is needed only while there is an old key.
        let mut second = self.previous.is_some().then(|| packet.to_vec());
        let next = self
            .next
            .get_or_insert_with(|| Box::new(self.secrets.next_packet_keys()))
            .remote
            .as_ref();
        let Some(payload) = decrypt(next, pn, packet) else {
            if let (Some(previous), Some(copy)) = (&self.previous, &mut second)
                && decrypt(previous.remote.as_ref(), pn, copy).is_some()
            {
                return Err(PeerMisbehaved::KeyUpdate.into());
            }
            return Err(self.failed_one());
        };
        // Two updates without our word in between, or numbers that go backwards.
        if self.sealed == 0 || pn < self.opened_end {
            return Err(PeerMisbehaved::KeyUpdate.into());
        }
        self.advance(Some(now + self.retain));
        self.opened_current(pn);
        Ok(Opened { payload, peer_updated: true })
    }

    /// Moves both directions to the next phase.
    fn advance(&mut self, drop_previous_at: Option<Instant>) {
        let next = match self.next.take() {
            Some(next) => *next,
            None => self.secrets.next_packet_keys(),
        };
        self.local = next.local;
        let remote = core::mem::replace(&mut self.remote, next.remote);
        self.previous = Some(Box::new(Previous { remote, drop_at: drop_previous_at }));
        self.phase = !self.phase;
        self.updates += 1;
        self.sealed = 0;
        self.first_sent = None;
        self.older_end = self.older_end.max(self.opened_end);
        self.first_opened = u64::MAX;
        self.opened_end = 0;
    }

    /// Whether [`Self::update`] would do something: a packet of the current phase was acknowledged
    /// (RFC 9001 §6.1) and the previous keys are gone.
    pub fn may_update(&self) -> bool {
        let acked = match (self.first_sent, self.largest_acked) {
            (Some(first), Some(acked)) => acked >= first,
            _ => false,
        };
        acked && self.previous.is_none()
    }

    /// Starts a key update if that is allowed now; says whether it did.
    pub fn update(&mut self) -> bool {
        let may = self.may_update();
        if may {
            self.advance(None);
        }
        may
    }

    /// Tells the highest packet number that the peer has acknowledged in an authenticated packet.
    #[inline]
    pub fn on_acked(&mut self, largest_acked: u64) {
        self.largest_acked = self.largest_acked.max(Some(largest_acked));
    }

    /// Drops the previous keys once their time is over. [`Self::open`] does it too.
    pub fn expire(&mut self, now: Instant) {
        if self.previous.as_ref().is_some_and(|p| p.drop_at.is_some_and(|at| now >= at)) {
            self.previous = None;
        }
    }

    /// When [`Self::expire`] has work: never urgent, the keys are only memory.
    pub fn previous_until(&self) -> Option<Instant> {
        self.previous.as_ref().and_then(|p| p.drop_at)
    }

    /// Packets that failed to open so far, all phases together.
    pub const fn failed_opens(&self) -> u64 {
        self.failed
    }

    /// Key updates so far, of either side.
    pub const fn updates(&self) -> u64 {
        self.updates
    }

    #[cold]
    fn failed_one(&mut self) -> OpenError {
        self.failed += 1;
        if self.failed > self.remote.integrity_limit() {
            PeerMisbehaved::IntegrityLimit.into()
        } else {
            OpenError::Forged
        }
    }
}

impl fmt::Debug for DataKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataKeys")
            .field("phase", &self.phase)
            .field("updates", &self.updates)
            .field("sealed", &self.sealed)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

#[inline]
fn decrypt<'a>(key: &dyn PacketKey, pn: u64, packet: &'a mut [u8]) -> Option<&'a mut [u8]> {
    let (header, sealed) = packet.split_at_mut_checked(SHORT_HEADER_LEN)?;
    let len = key.decrypt_in_place(pn, header, sealed).ok()?.len();
    sealed.get_mut(..len)
}

#[cfg(test)]
mod tests;
