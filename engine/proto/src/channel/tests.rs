//! Two multiplexers joined by an in-memory exchange of packets, from a seed.

mod behaviour;
mod bounds;
mod datagrams;
mod lives;
mod net;
mod random;
