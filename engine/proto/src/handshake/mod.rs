//! (under construction)

/// TLS settings of a host.
#[derive(Clone, Debug)]
pub struct HostTls {}

/// TLS settings of a client.
#[derive(Clone, Debug)]
pub struct ClientTls {}
