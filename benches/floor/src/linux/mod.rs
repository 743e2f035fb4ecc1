//! The measurements, on Linux.
//!
//! `pair` runs two pinned threads and marks the measured time; `packet` seals and opens;
//! `socket` has the system calls; the rest is one file for each floor.

mod bulk;
mod packet;
mod pair;
mod ping_pong;
mod single;
mod socket;
mod tick;

pub use bulk::bulk;
pub use ping_pong::ping_pong;
pub use single::single_packets;
pub use tick::tick;
