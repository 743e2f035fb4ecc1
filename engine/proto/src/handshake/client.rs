//! The client's side: what it awaits, and how it starts, follows a Retry and starts again.

use super::level::Space;
use super::outcome::Established;
use super::tls::{ClientTls, initial_keys};
use crate::crypto::Rng;
use crate::crypto::token::truncated;
use crate::error::{ApiError, PeerMisbehaved};
use crate::ids::{ConnectionId, Role};
use crate::limits::{MAX_RETRIES, VERSION};
use crate::wire::packet::{Level, Retry, VersionList};
use crate::wire::params::TransportParams;
use ring::hmac;
use rustls::{Side, quic};
use rustls_pki_types::ServerName;

/// Attempts that start again at once; further ones wait for the timer.
const QUICK_RESTARTS: u64 = 3;
/// Signs of a false ConnectionResponse that make the timer start again.
const SUSPICION: u32 = 2;
/// Timeouts without an answer after which a Retry counts as false.
const RETRY_PATIENCE: u32 = 2;
/// Timeouts in a row without anything authentic after which the first attempt is given up for a
/// fresh one; each further attempt gets one more.
const PATIENCE: u32 = 3;
/// Handshake packets kept while their keys are missing, and bytes of one.
const MAX_HELD: usize = 10;
const MAX_HELD_PACKET: usize = 2048;

/// What a client awaits.
#[derive(Debug)]
pub(super) enum ClientState {
    AwaitConnectionResponse(Box<AwaitConnectionResponse>),
    AwaitAuthenticationResponse,
}

/// The ConnectionRequest is out; the host has not proved itself.
#[derive(Debug)]
pub(super) struct AwaitConnectionResponse {
    tls: ClientTls,
    server_name: ServerName<'static>,
    params: TransportParams,
    /// Further destination ids come from here.
    ids: hmac::Key,
    restarts: u64,
    patience: u32,
    /// Where the ConnectionRequest goes; the Initial keys follow from it.
    destination_id: ConnectionId,
    /// What the host must name as `original_destination_id`.
    original_id: ConnectionId,
    retry: Option<FollowedRetry>,
    retries: u32,
    /// Whose Initial packet was opened first; packets of others are suspicious.
    answered_by: Option<ConnectionId>,
    /// Who answered the attempt before.
    former_host: Option<ConnectionId>,
    suspicion: u32,
    /// TLS failed on Initial bytes; nothing more is fed to it.
    poisoned: bool,
    /// A Handshake packet was opened: from now on only proof counts.
    locked: bool,
    held: Vec<Vec<u8>>,
}

#[derive(Debug)]
struct FollowedRetry {
    source_id: ConnectionId,
    token: Vec<u8>,
}

impl AwaitConnectionResponse {
    pub(super) fn start(
        tls: &ClientTls,
        server_name: &str,
        mut params: TransportParams,
        local_id: ConnectionId,
        rng: &mut Rng,
    ) -> Result<(Self, quic::Connection, Space), ApiError> {
        params.initial_source_id = local_id;
        params.original_destination_id = None;
        params.retry_source_id = None;
        let server_name = ServerName::try_from(server_name.to_owned()).map_err(|_| {
            ApiError::InvalidArgument {
                field: "server_name",
                why: "is neither a DNS name nor an IP address",
            }
        })?;
        let destination_id = rng.connection_id();
        let state = Self {
            tls: tls.clone(),
            server_name,
            params,
            ids: hmac::Key::new(hmac::HMAC_SHA256, &rng.array::<32>()),
            restarts: 0,
            patience: PATIENCE,
            destination_id,
            original_id: destination_id,
            retry: None,
            retries: 0,
            answered_by: None,
            former_host: None,
            suspicion: 0,
            poisoned: false,
            locked: false,
            held: Vec::new(),
        };
        let (connection, space) = state.begin()?;
        Ok((state, connection, space))
    }

    fn begin(&self) -> Result<(quic::Connection, Space), ApiError> {
        let connection = self.tls.connect(&self.server_name, self.params.encode())?;
        Ok((connection, Space::new(Level::Initial, self.initial_keys()?)))
    }

    fn initial_keys(&self) -> Result<quic::Keys, ApiError> {
        initial_keys(&self.destination_id.0, Side::Client)
            .ok_or(ApiError::Security("no Initial keys".into()))
    }

    /// A fresh attempt: new ClientHello, new destination id, no token.
    pub(super) fn restart(
        &mut self,
        local_id: ConnectionId,
        remote_id: ConnectionId,
    ) -> Result<(quic::Connection, Space), ApiError> {
        debug_assert_eq!(self.params.initial_source_id, local_id);
        self.restarts += 1;
        if !self.poisoned && self.suspicion < SUSPICION {
            // Nobody forged anything: perhaps the path is slower than the timer.
            self.patience += 1;
        }
        let mac = truncated(hmac::sign(&self.ids, &self.restarts.to_be_bytes()));
        let (head, _) = mac.split_first_chunk().unwrap_or((&[0; 8], &[]));
        self.destination_id = ConnectionId(*head);
        self.original_id = self.destination_id;
        self.former_host = self.answered_by.take().map(|_| remote_id);
        self.retry = None;
        self.retries = 0;
        self.suspicion = 0;
        self.poisoned = false;
        self.held.clear();
        self.begin()
    }

    pub(super) const fn destination_id(&self) -> ConnectionId {
        self.destination_id
    }

    /// The token for the ConnectionRequest; empty without a Retry.
    pub(super) fn token(&self) -> &[u8] {
        self.retry.as_ref().map_or(&[], |r| &r.token)
    }

    pub(super) const fn is_locked(&self) -> bool {
        self.locked
    }

    pub(super) const fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    /// Whether the timer should start again instead of sending again.
    pub(super) fn restart_is_due(&self, timeouts: u32) -> bool {
        let retry_ignored =
            self.retry.is_some() && self.answered_by.is_none() && timeouts >= RETRY_PATIENCE;
        let suspicious = self.poisoned || self.suspicion >= SUSPICION || retry_ignored;
        !self.locked && (suspicious || timeouts >= self.patience)
    }

    /// TLS refused Initial bytes: somebody forged them. Says whether to start again at once.
    pub(super) fn on_poison(&mut self) -> bool {
        self.poisoned = true;
        self.restarts < QUICK_RESTARTS
    }

    /// Something arrived that does not fit to the answer we believed.
    pub(super) fn suspect(&mut self, weight: u32) {
        self.suspicion = self.suspicion.saturating_add(weight);
    }

    /// An Initial packet with this source was opened. Says whether it is the host that we believe;
    /// the first one is.
    pub(super) fn answered(&mut self, source: ConnectionId) -> bool {
        *self.answered_by.get_or_insert(source) == source
    }

    pub(super) fn answered_by(&self) -> Option<ConnectionId> {
        self.answered_by
    }

    pub(super) fn is_former_host(&self, source: ConnectionId) -> bool {
        self.former_host == Some(source)
    }

    /// A Handshake packet was opened.
    pub(super) fn lock(&mut self) {
        self.locked = true;
        self.held = Vec::new();
    }

    /// Keeps a Handshake packet that came before its keys.
    pub(super) fn hold(&mut self, packet: &[u8]) -> bool {
        let keep = self.held.len() < MAX_HELD && packet.len() <= MAX_HELD_PACKET;
        if keep {
            self.held.push(packet.to_vec());
        }
        keep
    }

    pub(super) fn take_held(&mut self) -> Vec<Vec<u8>> {
        core::mem::take(&mut self.held)
    }

    /// Follows a Retry if it may be: gives the new Initial keys.
    pub(super) fn follow(
        &mut self,
        local_id: ConnectionId,
        retry: &Retry<'_>,
    ) -> Option<quic::Keys> {
        let may = self.answered_by.is_none()
            && self.retries < MAX_RETRIES
            && retry.dcid == local_id
            && retry.scid != self.destination_id
            && retry.verify(&self.destination_id.0);
        if !may {
            return None;
        }
        self.retries += 1;
        self.original_id = self.destination_id;
        self.destination_id = retry.scid;
        self.retry = Some(FollowedRetry { source_id: retry.scid, token: retry.token.to_vec() });
        self.initial_keys().ok()
    }

    /// Whether this list answers our request and lacks our version.
    pub(super) fn is_version_refused(
        &self,
        local_id: ConnectionId,
        list: &VersionList<'_>,
    ) -> bool {
        self.answered_by.is_none()
            && list.dcid == local_id.0
            && list.scid == self.destination_id.0
            && list.versions().all(|v| v != VERSION)
    }

    /// The host has proved itself: checks what it says it saw (RFC 9000 §7.3).
    pub(super) fn check(&self, host: &TransportParams) -> Result<(), PeerMisbehaved> {
        host.check_sender(Role::Host)?;
        if Some(host.initial_source_id) != self.answered_by {
            return Err(PeerMisbehaved::Unexpected("initial_source_id"));
        }
        if host.original_destination_id != Some(self.original_id) {
            return Err(PeerMisbehaved::Unexpected("original_destination_id"));
        }
        if host.retry_source_id != self.retry.as_ref().map(|r| r.source_id) {
            return Err(PeerMisbehaved::Unexpected("retry_source_id"));
        }
        Ok(())
    }

    /// Fills in what only the client knows, and moves on to awaiting the AuthenticationResponse.
    pub(super) fn proved(&self, established: &mut Established) -> ClientState {
        established.server_name = Some(self.server_name.to_str().into_owned());
        ClientState::AwaitAuthenticationResponse
    }
}
