//! Which driver, with how much memory, and what to say when there is none.

use std::fmt;
use std::str::FromStr;

/// Which driver to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DriverChoice {
    /// The best that works here: io_uring if its probe succeeds, otherwise mio.
    #[default]
    Auto,
    /// io_uring or an error.
    Uring,
    /// mio.
    Mio,
}

impl fmt::Display for DriverChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Uring => "uring",
            Self::Mio => "mio",
        })
    }
}

impl FromStr for DriverChoice {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s {
            "auto" => Ok(Self::Auto),
            "uring" => Ok(Self::Uring),
            "mio" => Ok(Self::Mio),
            other => Err(format!("unknown driver \"{other}\"; expected auto, uring or mio")),
        }
    }
}

/// Sizes of a driver's pools and queues. Values out of range are clamped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriverConfig {
    /// Receive buffers in all, leased ones included (8 to 32,768).
    pub rx_buffers: usize,
    /// Most receive buffers waiting in the kernel at once (io_uring); a power of two, at most
    /// `rx_buffers`. It gets as few of them as the traffic needs, which stay in the processor's
    /// caches.
    pub rx_posted: usize,
    /// Payload bytes of a receive buffer. Less than 65,536 risks truncating merged trains.
    pub rx_buffer_bytes: usize,
    /// Transmit buffers, [`MAX_TRAIN`](super::MAX_TRAIN) bytes each (4 to 4,096).
    pub tx_buffers: usize,
    /// Receive buffers that leases leave alone.
    pub lease_reserve: usize,
    /// Most items that one poll delivers.
    pub max_batch: usize,
    /// Most segments in one train (1 to 64).
    pub max_segments: usize,
    /// Sockets at once.
    pub max_sockets: usize,
    /// Let the system cut trains.
    pub gso: bool,
    /// Let the system merge datagrams.
    pub gro: bool,
    /// io_uring: tie the ring to the thread that makes it (faster). Off for a shard that the
    /// application drives from changing threads.
    pub thread_bound: bool,
}

impl Default for DriverConfig {
    fn default() -> Self {
        Self {
            rx_buffers: 256,
            rx_posted: 64,
            rx_buffer_bytes: 65_536,
            tx_buffers: 64,
            lease_reserve: 128,
            max_batch: 64,
            max_segments: super::MAX_SEGMENTS,
            max_sockets: 64,
            gso: true,
            gro: true,
            thread_bound: true,
        }
    }
}

impl DriverConfig {
    /// The same with every value inside its bounds.
    pub fn clamped(&self) -> Self {
        let rx_buffers = self.rx_buffers.clamp(8, 32_768);
        let rx_posted = self.rx_posted.clamp(4, rx_buffers);
        let posted_down = 1 << rx_posted.ilog2();
        Self {
            rx_buffers,
            rx_posted: posted_down,
            rx_buffer_bytes: self.rx_buffer_bytes.clamp(2_048, 65_536),
            tx_buffers: self.tx_buffers.clamp(4, 4_096),
            lease_reserve: self.lease_reserve.clamp(4.min(rx_buffers), rx_buffers),
            max_batch: self.max_batch.clamp(1, 4_096),
            max_segments: self.max_segments.clamp(1, super::MAX_SEGMENTS),
            max_sockets: self.max_sockets.clamp(1, 1_024),
            ..self.clone()
        }
    }
}

/// Why there is no driver.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The driver asked for does not work here.
    #[error("the {driver} driver is not available: {reason}")]
    Unavailable {
        /// Its name.
        driver: &'static str,
        /// What failed, why that may be, and what would help.
        reason: String,
    },
    /// The system refused something that every driver needs.
    #[error("{context}: {source}")]
    System {
        /// What was being done.
        context: &'static str,
        /// The system's error.
        source: std::io::Error,
    },
}
