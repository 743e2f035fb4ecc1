//! Hardware profiles.

use crate::abi;
use crate::config::{PIN_NEAR, trunk_engine_config};
use crate::result::{Error, TRUNK_ERR_FILE, TRUNK_ERR_INVALID_ARGUMENT, guard, trunk_result};
use engine::hw::{Machine, ProfileError};
use engine::{EngineConfig, Pinning};
use std::ffi::c_char;
use std::fmt::Write as _;

fn error(error: &ProfileError) -> Error {
    let code = match error {
        ProfileError::File { .. } => TRUNK_ERR_FILE,
        _ => TRUNK_ERR_INVALID_ARGUMENT,
    };
    Error::text(code, error.to_string())
}

/// Takes the settings of a hardware profile over into config, which trunk_engine_config_init has
/// prepared: "auto" (for the network interface with the default route), the name of one that is
/// part of the library (such as "generic", "ena" or "mlx5"; docs/profiles.md), or the path of a
/// file (anything with a slash or a dot). Change single settings afterwards. The shards of a
/// thread-less engine stay 1.
///
/// What was set is stored as text in the capacity bytes at report, one line for each setting with
/// its reason; size, which may be NULL, gets the bytes needed, final NUL included. report may be
/// NULL when capacity is 0: then nothing is stored there.
///
/// Any thread; reads files, does not block otherwise. Errors: TRUNK_ERR_NULL,
/// TRUNK_ERR_INVALID_ARGUMENT (no such profile, or a mistake in it), TRUNK_ERR_FILE,
/// TRUNK_ERR_BUFFER_TOO_SMALL (config was changed).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_engine_config_load_profile(
    config: *mut trunk_engine_config,
    which: *const c_char,
    report: *mut c_char,
    capacity: usize,
    size: *mut usize,
) -> trunk_result {
    guard(|| {
        abi::expect(config, "config")?;
        // SAFETY: a config and a string by contract.
        let (mut changed, which) = unsafe { (abi::read(config)?, abi::text(which, "which")?) };
        let mut settings = EngineConfig::default();
        let applied = settings.load_profile(which).map_err(|e| error(&e))?;
        let mut text = String::new();
        for one in &applied {
            match one.setting {
                "shards" if changed.threadless != 0 => continue,
                "shards" => changed.shards = settings.shards as u32,
                "pin" => changed.pin = (settings.pin != Pinning::None).into(),
                // What was found is looked up again when the engine starts, on the same machine.
                "placement" if settings.pin == Pinning::Cores(Machine::this().near()) => {
                    changed.pin = PIN_NEAR;
                }
                "gso_segments" => changed.gso_segments = settings.gso_segments as u32,
                "socket_buffer_bytes" => {
                    changed.socket_buffer_bytes = settings.socket_buffer_bytes as u64;
                }
                "rx_buffers" => changed.rx_buffers = settings.rx_buffers as u32,
                "tx_buffers" => changed.tx_buffers = settings.tx_buffers as u32,
                "gso" => changed.gso = settings.gso.into(),
                "gro" => changed.gro = settings.gro.into(),
                "busy_poll_us" => {
                    // 0 stands for the default there.
                    let ns = settings.busy_poll.map_or(0, |d| d.as_nanos() as u64);
                    changed.busy_poll_ns = ns.max(1);
                }
                _ => continue,
            }
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{one}");
        }
        // SAFETY: read from there before.
        unsafe { abi::write(config, &changed) }?;
        if report.is_null() && capacity == 0 {
            if !size.is_null() {
                // SAFETY: writable by contract.
                unsafe { size.write(text.len() + 1) };
            }
            return Ok(());
        }
        // SAFETY: the caller's buffer.
        unsafe { abi::put_text(&text, report, capacity, size) }
    })
}
