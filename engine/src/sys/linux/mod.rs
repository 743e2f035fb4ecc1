//! The Linux side of [`sys`](super).

mod address;
mod bpf;
mod control;
mod ethtool;
#[cfg(test)]
pub(crate) mod isolate;
mod messages;
mod socket;
mod wait;

pub use address::{NAME_BYTES, Name};
pub use bpf::{Instruction, attach_steering, steering_program};
pub use control::{RECEIVE_CONTROL_BYTES, SEND_CONTROL_BYTES, SendControl, describe};
pub use ethtool::Interface;
pub use messages::{RecvBatch, SendBatch};
pub(crate) use socket::disconnect;
#[cfg(test)]
pub(crate) use socket::set_no_checksum;
pub use socket::{bind_group, configure, offloads, stream_backlog};
pub use wait::{EventFd, sleep_readable};

/// The kernel's release, such as `6.12.3`; empty when it cannot be read.
pub fn kernel_release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map(|s| s.trim().to_owned())
        .unwrap_or_default()
}
