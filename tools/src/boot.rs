//! Which start of which machine this is.

use std::fs;
use std::sync::OnceLock;

/// The kernel's random id of this start; empty where the system has none.
pub fn id() -> &'static str {
    static ID: OnceLock<String> = OnceLock::new();
    ID.get_or_init(|| {
        let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        text.trim().to_owned()
    })
}
