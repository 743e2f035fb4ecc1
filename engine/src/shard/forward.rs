//! Datagrams that the system gave to the wrong shard.
//!
//! The steering program of the reuseport group makes this rare (an address change of the group, a
//! merged train of two connections). Each is copied, goes through a bounded queue, and is counted
//! on both sides; what does not fit is dropped like any datagram. Data and shards stay apart: no
//! buffer ever belongs to two shards.

use super::shared::Shared;
use crate::handle::ListenerId;
use crate::stats::ShardCounters;
use trunkline_proto::endpoint::RxMeta;

/// One datagram on its way to the shard that its connection id names.
pub(crate) struct Forwarded {
    /// Where it arrived; the number of the socket is the sender's and means nothing here.
    pub meta: RxMeta,
    /// The listener it arrived at.
    pub listener: ListenerId,
    /// All of it.
    pub data: Box<[u8]>,
}

/// Hands a copy of `data` to shard `to`.
pub(crate) fn forward(
    shared: &Shared,
    counters: &ShardCounters,
    to: u8,
    meta: &RxMeta,
    listener: ListenerId,
    data: &[u8],
) {
    // Any byte can stand in a forged packet.
    let Some(port) = shared.ports.get(usize::from(to)) else {
        counters.forwards_dropped.add(1);
        return;
    };
    // A copy is made only if there is room for it.
    if port.forwards.is_full() || port.is_closed() {
        counters.forwards_dropped.add(1);
        return;
    }
    let forwarded = Forwarded { meta: *meta, listener, data: data.into() };
    if port.forwards.push(forwarded).is_err() {
        counters.forwards_dropped.add(1);
        return;
    }
    counters.forwards_sent.add(1);
    port.notify();
}
