//! Presence on the local network: [`Discovery`] finds devices, [`Announcer`] lets itself be found.
//!
//! Both own their sockets and stand beside an engine, which they know nothing of: an announcer
//! tells the port that an engine listens on, and what a discovery finds is what an engine connects
//! to. Neither has a thread: the application calls [`Discovery::poll`] and [`Announcer::poll`],
//! which wait for as long as it allows or until another thread uses their [`Waker`], or puts their
//! `as_raw_fd()` into its own event loop. The protocol is
//! [`trunkline_proto::rendezvous::presence`]; `docs/presence.md` is its text.
//!
//! Interfaces that come and go are noticed within [`Interfaces::rescan`]. What goes wrong on one
//! interface hurts no other and is told by `problems()`; only when no interface is left to begin
//! with, starting fails.
//!
//! ```no_run
//! use std::time::Duration;
//! use trunkline::discovery::{Discovery, DiscoveryConfig};
//! use trunkline::{ConnectConfig, Trust};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut discovery = Discovery::start(DiscoveryConfig::for_service("chess.example"))?;
//! for device in discovery.find(Duration::from_secs(1))? {
//!     // Pinned to the key that it announced: whoever answers must prove to have it.
//!     let connect = ConnectConfig {
//!         remotes: device.addresses(),
//!         ..ConnectConfig::new(device.addresses()[0], Trust::Pins(vec![device.peer]))
//!     };
//!     println!("{}: {connect:?}", device.name);
//! }
//! # Ok(())
//! # }
//! ```

mod announcer;
mod finder;
mod interfaces;
mod ports;

pub use announcer::{Announcer, AnnouncerConfig};
pub use finder::{Discovery, DiscoveryConfig};
pub use interfaces::Interfaces;
pub use ports::{Problem, Waker};
pub use trunkline_proto::rendezvous::presence::{
    Announcement, Answers, ClientConfig, ClientCounts, ClientEvent, ClientState, Destination,
    Device, DeviceId, DeviceType, GROUP_V4, GROUP_V6, HostConfig, HostCounts, HostState, Links,
    Mode, PORT, Path, Reach,
};

use std::io;
use trunkline_proto::error::ApiError;

/// Why presence cannot start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiscoveryError {
    /// A setting is unusable; it is named.
    #[error(transparent)]
    Settings(#[from] ApiError),
    /// The system refused something that has to do with no single interface.
    #[error("{context}: {source}")]
    System {
        /// What was being done.
        context: &'static str,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// Not one interface can be used.
    #[error("no network interface can be used{}", list(.0))]
    NoInterface(
        /// Why not, for each.
        Vec<Problem>,
    ),
}

fn list(problems: &[Problem]) -> String {
    if problems.is_empty() {
        return ": there is none with an address".to_owned();
    }
    let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
    format!(": {}", all.join("; "))
}

fn system(context: &'static str) -> impl FnOnce(io::Error) -> DiscoveryError {
    move |source| DiscoveryError::System { context, source }
}

/// A seed for the protocol, from the system.
fn seed() -> Result<[u8; 32], DiscoveryError> {
    use ring::rand::{SecureRandom, SystemRandom};
    let mut seed = [0; 32];
    SystemRandom::new()
        .fill(&mut seed)
        .map_err(|_| system("random numbers")(io::Error::other("the system gives none")))?;
    Ok(seed)
}

#[cfg(test)]
mod tests;
