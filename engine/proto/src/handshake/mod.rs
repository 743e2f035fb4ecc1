//! (stand-in until the handshake is merged)
#![allow(missing_docs, unused_variables, clippy::needless_pass_by_value)]
use crate::error::ApiError;
use crate::ids::PeerId;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::Arc;
pub use rustls::KeyLog;

#[derive(Clone, Debug)]
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
}
impl Identity {
    pub fn from_pem(certificates: &[u8], private_key: &[u8]) -> Result<Self, ApiError> {
        Ok(Self { chain: Vec::new() })
    }
    pub fn from_der(
        chain: Vec<CertificateDer<'static>>,
        private_key: PrivateKeyDer<'static>,
    ) -> Result<Self, ApiError> {
        Ok(Self { chain })
    }
    pub const fn peer_id(&self) -> PeerId {
        PeerId([0; 32])
    }
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }
}
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Trust {
    Roots(Vec<CertificateDer<'static>>),
    Pins(Vec<PeerId>),
    DangerousAny,
}
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ClientAuth {
    Required(Trust),
    Optional(Trust),
    None,
}
#[derive(Clone, Debug)]
pub struct HostTls {}
impl HostTls {
    pub fn new(
        identity: Identity,
        client_auth: &ClientAuth,
        key_log: Option<Arc<dyn KeyLog>>,
    ) -> Result<Self, ApiError> {
        Ok(Self {})
    }
}
#[derive(Clone, Debug)]
pub struct ClientTls {}
impl ClientTls {
    pub fn new(
        identity: Option<Identity>,
        trust: &Trust,
        key_log: Option<Arc<dyn KeyLog>>,
    ) -> Result<Self, ApiError> {
        Ok(Self {})
    }
}
pub fn peer_id_of(certificate: &CertificateDer<'_>) -> Result<PeerId, ApiError> {
    Ok(PeerId([0; 32]))
}
