//! The host's side: what it awaits, and how it starts.

use super::level::Space;
use super::outcome::Established;
use super::tls::{HostTls, initial_keys};
use crate::crypto::RetryOrigin;
use crate::error::{ApiError, PeerMisbehaved};
use crate::ids::{ConnectionId, Role};
use crate::wire::packet::{Level, LongHeader, MessageType};
use crate::wire::params::TransportParams;
use rustls::{Side, quic};

/// What a host awaits.
#[derive(Debug)]
pub(super) enum HostState {
    AwaitAuthenticationRequest(AwaitAuthenticationRequest),
    Ready,
}

/// A ConnectionRequest is being answered; the client has not proved itself.
#[derive(Debug)]
pub(super) struct AwaitAuthenticationRequest {
    client_id: ConnectionId,
    request_id: ConnectionId,
}

impl AwaitAuthenticationRequest {
    pub(super) fn start(
        tls: &HostTls,
        mut params: TransportParams,
        local_id: ConnectionId,
        request: &LongHeader<'_>,
        retry: Option<&RetryOrigin>,
    ) -> Result<(Self, quic::Connection, Space), ApiError> {
        let bad = |why| ApiError::InvalidArgument { field: "request", why };
        if request.message != MessageType::ConnectionRequest || request.level != Level::Initial {
            return Err(bad("is not a ConnectionRequest"));
        }
        let ids = request.source().zip(request.destination());
        let (client_id, request_id) = ids.ok_or(bad("has ids of a length other than 8"))?;
        let original = match retry {
            Some(origin) => origin
                .original_destination_id()
                .try_into()
                .map(ConnectionId)
                .map_err(|_| bad("has a token for an id of a length other than 8"))?,
            None => request_id,
        };
        params.initial_source_id = local_id;
        params.original_destination_id = Some(original);
        params.retry_source_id = retry.map(|_| request_id);
        let connection = tls.accept(params.encode())?;
        let keys = initial_keys(&request_id.0, Side::Server)
            .ok_or(ApiError::Security("no Initial keys".into()))?;
        let state = Self { client_id, request_id };
        Ok((state, connection, Space::new(Level::Initial, keys)))
    }

    pub(super) const fn client_id(&self) -> ConnectionId {
        self.client_id
    }

    pub(super) const fn request_id(&self) -> ConnectionId {
        self.request_id
    }

    /// The client has proved itself: checks its parameters (RFC 9000 §7.3).
    pub(super) fn check(&self, client: &TransportParams) -> Result<(), PeerMisbehaved> {
        client.check_sender(Role::Client)?;
        if client.initial_source_id != self.client_id {
            return Err(PeerMisbehaved::Unexpected("initial_source_id"));
        }
        Ok(())
    }

    /// Fills in what only the host knows.
    pub(super) fn proved(
        tls: &quic::Connection,
        tickets: Vec<u8>,
        established: &mut Established,
    ) -> HostState {
        if let quic::Connection::Server(server) = tls {
            established.server_name = server.server_name().map(str::to_owned);
        }
        established.tickets = tickets;
        HostState::Ready
    }
}
