//! Who decides about the security of a connection while it is being made (behaviours §5).

use crate::connection::SecInfo;
use crate::handshake::{Identity, Trust};
use core::fmt;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// A value of the application, given with a connect or a send, kept until the connection stands or
/// has failed, and handed to the [`SecurityCallback`] meanwhile. It means nothing to anybody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SecHandle(pub u64);

/// When the callback is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SecurityStage {
    /// Before anything is sent: identity, trust and credential can be chosen.
    Beginning,
    /// The peer has proved itself, and our credential has not left yet: it can be chosen, and pins
    /// given now must hold.
    PeerProven,
}

/// What the callback is told.
#[derive(Debug)]
pub struct SecurityQuery<'a> {
    /// What was given with the connect or send; `None` = nothing was.
    pub handle: Option<SecHandle>,
    /// How far the attempt is.
    pub stage: SecurityStage,
    /// What is known by now. At [`SecurityStage::Beginning`] that is our own side.
    pub info: &'a SecInfo,
    /// Where the connection leads.
    pub remotes: &'a [SocketAddr],
    /// The TLS server name that is asked for.
    pub server_name: &'a str,
}

/// What the callback wants; what it leaves out stays as the connect says.
#[derive(Clone, Debug, Default)]
pub struct SecurityChoice {
    /// Who we are. Without effect once the peer is proven.
    pub identity: Option<Identity>,
    /// Whom to believe. Once the peer is proven only [`Trust::Pins`] have an effect: a peer that is
    /// none of them is refused.
    pub trust: Option<Trust>,
    /// What is shown to the host after the handshake; at most 8192 bytes.
    pub credential: Option<Vec<u8>>,
}

/// The attempt fails as [`Reason::AUTHENTICATION`](crate::error::Reason::AUTHENTICATION), with these
/// words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused(pub String);

type Callback = dyn Fn(&SecurityQuery<'_>) -> Result<SecurityChoice, Refused> + Send + Sync;

/// The application's say while connections are being made. Called without any lock, by whichever
/// thread makes the connection; it must not block. One that panics has refused.
///
/// ```
/// use trunkline_proto::manager::{Refused, SecHandle, SecurityCallback, SecurityChoice, SecurityStage};
///
/// let callback = SecurityCallback::new(|query| match (query.stage, query.handle) {
///     (SecurityStage::Beginning, _) => Ok(SecurityChoice::default()),
///     // The credential leaves only towards a peer that is known.
///     (SecurityStage::PeerProven, Some(SecHandle(42))) if query.info.peer.identity.is_some() => {
///         let credential = Some(b"ticket of user 42".to_vec());
///         Ok(SecurityChoice { credential, ..SecurityChoice::default() })
///     }
///     _ => Err(Refused("not with this peer".into())),
/// });
/// # let _ = callback;
/// ```
#[derive(Clone)]
pub struct SecurityCallback(Arc<Callback>);

impl SecurityCallback {
    /// A callback.
    pub fn new(
        callback: impl Fn(&SecurityQuery<'_>) -> Result<SecurityChoice, Refused> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(callback))
    }

    /// Asks.
    ///
    /// # Errors
    /// [`Refused`], also for a choice that cannot be: a peer outside the pins chosen when it is
    /// proven.
    pub fn ask(&self, query: &SecurityQuery<'_>) -> Result<SecurityChoice, Refused> {
        let choice = catch_unwind(AssertUnwindSafe(|| (self.0)(query)))
            .unwrap_or_else(|_| Err(Refused("the security callback panicked".into())))?;
        if query.stage == SecurityStage::PeerProven
            && let Some(Trust::Pins(pins)) = &choice.trust
            && !query.info.peer.identity.is_some_and(|id| pins.contains(&id))
        {
            return Err(Refused("the key is not one of those chosen".into()));
        }
        Ok(choice)
    }
}

impl fmt::Debug for SecurityCallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecurityCallback(..)")
    }
}
