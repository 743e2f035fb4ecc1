//! Models of what threads decide between them: the engine's own code, in every order of its steps
//! that the memory model allows, with at most so many interruptions.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p trunkline --profile loom --lib loom_` runs them. A model
//! that fails prints what went wrong; with `LOOM_LOG=trace LOOM_LOCATION=1` it also prints each step
//! on the way there. `LOOM_MAX_PREEMPTIONS` changes the number of interruptions.

mod loom_cells;
mod loom_credit;
mod loom_group;
mod loom_link;
mod loom_memory;
mod loom_port;

use super::command::Command;
use super::link::ShardLink;
use crate::config::EngineConfig;
use crate::handle::{Channel, Conn};
use crate::shard::mailbox::{Mailbox, Port};
use std::sync::{Arc, OnceLock};
use trunkline_proto::ids::ChannelKey;
use trunkline_proto::status::Status;

/// Tries every order of the steps of `model`, in which threads are interrupted at most so often.
fn explore(interruptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(interruptions);
    let orders = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let count = orders.clone();
    builder.check(move || {
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        model();
    });
    println!("{} orders", orders.load(std::sync::atomic::Ordering::Relaxed));
}

/// A shard's link with small bounds: `commands` places, and `bytes` for each channel.
fn link(commands: usize, bytes: usize) -> Arc<ShardLink> {
    static CONFIG: OnceLock<EngineConfig> = OnceLock::new();
    let mut config = CONFIG.get_or_init(EngineConfig::default).clone();
    (config.queue_channel_bytes, config.queue_shard_bytes) = (bytes, 2 * bytes);
    let mailbox: Mailbox<Command> = Mailbox::new(commands);
    Arc::new(ShardLink::new(0, Arc::new(mailbox), Arc::new(Port::new(1)), &config))
}

/// A connection that can be used.
fn begin_conn(link: &ShardLink) -> Conn {
    let (slot, life) = link.conns.take().expect("a free cell");
    link.conns.get(slot).expect("just taken").begin(Status::Connected, 0);
    link.conn_name(slot, life)
}

/// A channel of it.
fn begin_channel(link: &ShardLink, conn: Conn, flags: u32) -> Channel {
    let (slot, life) = link.channels.take().expect("a free cell");
    link.channels.get(slot).expect("just taken").begin(conn.to_bits(), flags);
    Channel::new(conn, ChannelKey { slot, life })
}
