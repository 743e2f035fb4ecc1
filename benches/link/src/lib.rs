//! A model of one direction of a link: it delays packets, loses some, and passes no more than a
//! rate.
//!
//! ```text
//! in → queue (bytes, tail drop) → line (bit/s) → losses → delay ± jitter → out
//! ```
//!
//! A packet that is lost has used its time on the line, as on a real one. The model has no clock,
//! no sockets and no randomness of its own: time, a seed and packets are arguments, so the same
//! calls have the same results. `link-emulator`, the program beside it, puts two of them between
//! network namespaces.
//!
//! ```
//! use std::time::Duration;
//! use trunkline_link::{Fate, Link, LinkConfig};
//!
//! let delay = Duration::from_millis(10);
//! let mut link = Link::new(&LinkConfig { delay, ..LinkConfig::default() }, 1).unwrap();
//! assert_eq!(link.send(Duration::ZERO, 1500, "a packet"), Fate::Sent(delay));
//! assert_eq!(link.receive(Duration::from_millis(9)), None);
//! assert_eq!(link.receive(delay), Some("a packet"));
//! ```

mod config;
mod link;
mod random;
pub mod units;

pub use config::{Burst, ConfigError, LinkConfig};
pub use link::{Counters, Fate, Link};
