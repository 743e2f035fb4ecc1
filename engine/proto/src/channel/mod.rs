//! Channels: many streams of bytes, messages and datagrams over one connection.
//!
//! [`Mux`] owns all channels of one connection and the CONTROL stream. It knows offsets, queues
//! and credit; of packets it knows only what it is told: which [`FrameRecord`]s were acknowledged
//! and which were lost. Called by `connection`, which owns recovery, timers and authentication.
//!
//! | module | what |
//! | --- | --- |
//! | `mux` | the type, its settings, timers and reports |
//! | `table` | slots, ids and what is remembered of former lives of an id |
//! | `api` | calls of the application |
//! | `control`, `requests` | the CONTROL stream: messages of the connection; requests and answers |
//! | `early` | frames that overtook the request or the answer they need |
//! | `incoming`, `signals` | frames in: data; CREDIT, RESET and STOP |
//! | `activity`, `outgoing` | when a channel may send; frames out |
//! | `framing`, `stream` | what is different when the link below is a stream |
//! | `feedback` | acknowledged and lost records, the end of a channel |
//! | `sched` | who sends next |
//! | `flow` | who may send how much |
//! | `send`, `recv` | the two halves of a reliable stream |
//! | `datagram` | queues and reassembly of unreliable messages |
//! | `pool` | memory that channels hand back |
//!
//! [`FrameRecord`]: crate::wire::record::FrameRecord

mod activity;
mod api;
mod control;
mod datagram;
mod early;
mod feedback;
mod flow;
mod framing;
mod incoming;
mod mux;
mod outgoing;
mod pool;
mod recv;
mod requests;
mod sched;
mod send;
mod signals;
mod stream;
mod table;
#[cfg(test)]
mod tests;

pub use control::{CONTROL_WINDOW, ConnMessage};
pub use framing::Framing;
pub use mux::{ChannelInfo, ChannelPhase, DeliveryReport, Mux, MuxStats};
pub use stream::FrameShape;
