//! What every transport has to offer, and the list of them.

use crate::figures::Figure;
use crate::peers;
use crate::scale;
use crate::side::Side;
use crate::workload::{Job, Workload};
use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

/// How a side ended. `Ok`: it goes on, on threads of its own.
pub type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

/// A transport that can run workloads. Both calls run in a process of their own whose threads are
/// pinned to one processor, and use that process as they like.
pub trait Peer: Sync {
    /// As on the command line.
    fn name(&self) -> &'static str;

    /// One line: what it is and how it was set up.
    fn about(&self) -> &'static str;

    /// The packages whose versions matter.
    fn packages(&self) -> &'static [&'static str];

    /// Why it has no figure for this workload; `None` = it has one.
    fn refuses(&self, workload: Workload) -> Option<&'static str>;

    /// Receives: says where it listens, then counts what is delivered and right.
    ///
    /// # Errors
    /// It cannot be started, or it broke down.
    fn serve(&self, job: &Job, side: &Side) -> Outcome;

    /// Sends as fast as the server takes it, or as the workload says: says when it is running.
    ///
    /// # Errors
    /// It cannot connect, or it broke down.
    fn drive(&self, job: &Job, server: SocketAddr, side: &Side) -> Outcome;

    /// The figure of one that is measured in this process instead of by two sides.
    fn measure(&self, _job: &Job, _time: Duration) -> Option<Result<Figure, String>> {
        None
    }
}

/// All of them, Trunkline first.
pub const ALL: [&dyn Peer; 9] = [
    &peers::trunkline::Trunkline,
    &peers::queued::Queued,
    &peers::tcp::Tcp,
    &peers::yamux::Yamux,
    &peers::quinn::Quinn,
    &peers::s2n::S2n,
    &peers::enet::Enet,
    &peers::kcp::KcpPeer,
    &peers::floor::Floor,
];

/// By name; that of series, which is none of them, too.
pub fn find(name: &str) -> Option<&'static dyn Peer> {
    if name == scale::sides::NAME {
        return Some(&scale::sides::Scale);
    }
    ALL.into_iter().find(|peer| peer.name() == name)
}
