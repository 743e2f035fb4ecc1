//! Which start of which machine this is.

use std::fs;

/// The kernel's random id of this start; empty where the system has none.
pub fn id() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}
