//! Hardware profiles.

use crate::abi;
use crate::config::{PIN_NEAR, trunk_engine_config};
use crate::result::{Error, TRUNK_ERR_FILE, TRUNK_ERR_INVALID_ARGUMENT, guard, trunk_result};
use engine::hw::profile::Placement;
use engine::hw::{Applied, Machine, Profile, ProfileError};
use engine::{EngineConfig, Pinning};
use std::ffi::c_char;
use std::fmt::Write as _;
use std::mem::offset_of;

fn error(error: &ProfileError) -> Error {
    let code = match error {
        ProfileError::File { .. } => TRUNK_ERR_FILE,
        _ => TRUNK_ERR_INVALID_ARGUMENT,
    };
    Error::text(code, error.to_string())
}

/// A profile fitted to this machine.
struct Fitted {
    settings: EngineConfig,
    applied: Vec<Applied>,
    /// Shards that have a processor each have one near the interface.
    near: bool,
}

impl Fitted {
    fn load(which: &str) -> Result<Self, ProfileError> {
        let machine = Machine::this();
        let profile = Profile::find(which, &machine)?;
        tracing::info!(profile = profile.name, "hardware profile");
        let mut settings = EngineConfig::default();
        let applied = profile.apply(&mut settings, &machine);
        let placement = profile.engine.placement.as_ref().map(|p| p.value);
        Ok(Self { settings, applied, near: placement == Some(Placement::Near) })
    }

    /// Takes one setting over; `false` when the C interface, or the caller's version of the struct,
    /// has no place for it.
    fn take(&self, setting: &str, to: &mut trunk_engine_config) -> bool {
        let from = &self.settings;
        // A struct is cut between fields, at a multiple of its alignment.
        let size = to.struct_size as usize;
        macro_rules! set {
            ($field:ident, $value:expr) => {{
                to.$field = $value;
                offset_of!(trunk_engine_config, $field) < size
            }};
        }
        match setting {
            "shards" if to.threadless == 0 => set!(shards, from.shards as u32),
            "pin" => set!(pin, (from.pin != Pinning::None).into()),
            // What was found is looked up again when the engine starts, on the same machine.
            "placement" if from.pin != Pinning::None => {
                set!(pin, if self.near { PIN_NEAR } else { 1 })
            }
            "gso_segments" => set!(gso_segments, from.gso_segments as u32),
            "socket_buffer_bytes" => set!(socket_buffer_bytes, from.socket_buffer_bytes as u64),
            "rx_buffers" => set!(rx_buffers, from.rx_buffers as u32),
            "tx_buffers" => set!(tx_buffers, from.tx_buffers as u32),
            "gso" => set!(gso, from.gso.into()),
            "gro" => set!(gro, from.gro.into()),
            // 0 stands for the default there.
            "busy_poll_us" => {
                set!(busy_poll_ns, from.busy_poll.map_or(0, |d| d.as_nanos() as u64).max(1))
            }
            _ => false,
        }
    }
}

/// Takes the settings of a hardware profile over into config, which trunk_engine_config_init has
/// prepared: "auto" (for the network interface with the default route), the name of one that is
/// part of the library (such as "generic", "ena" or "mlx5"; docs/profiles.md), or the path of a
/// file (anything with a slash or a dot). Change single settings afterwards. The shards of a
/// thread-less engine stay 1.
///
/// What was set is stored as text in the capacity bytes at report, one line for each setting with
/// its reason; what the caller's version of config has no field for is left out. size, which may be
/// NULL, gets the bytes needed, final NUL included. report may be NULL when capacity is 0: then
/// nothing is stored there.
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
        let fitted = Fitted::load(which).map_err(|e| error(&e))?;
        let mut text = String::new();
        for one in &fitted.applied {
            if fitted.take(one.setting, &mut changed) {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "{one}");
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::Struct as _;
    use crate::config::trunk_engine_config_init_sized;
    use std::ffi::CStr;

    /// What a profile does with a struct of a size, and what is told of it.
    fn loaded(which: &CStr, size: usize) -> (trunk_engine_config, String) {
        let mut config = trunk_engine_config::defaults();
        let mut report = [0 as c_char; 8192];
        // SAFETY: a size that the struct has, a string, and a buffer with its size.
        unsafe {
            assert_eq!(trunk_engine_config_init_sized(&raw mut config, size), 0);
            let (text, capacity) = (report.as_mut_ptr(), report.len());
            let done = trunk_engine_config_load_profile(
                &raw mut config,
                which.as_ptr(),
                text,
                capacity,
                std::ptr::null_mut(),
            );
            assert_eq!(done, 0);
            (config, CStr::from_ptr(text).to_str().unwrap().to_owned())
        }
    }

    fn told(text: &str, setting: &str) -> bool {
        text.lines().any(|line| line.starts_with(setting))
    }

    #[test]
    fn an_older_caller_is_told_what_it_has_fields_for() {
        let whole = size_of::<trunk_engine_config>();
        let (config, text) = loaded(c"r8169", whole);
        assert_eq!(config.gso_segments, 32);
        assert!(told(&text, "gso_segments = 32: ") && told(&text, "pin = "), "{text}");
        let defaults = trunk_engine_config::defaults();
        let (config, text) = loaded(c"r8169", offset_of!(trunk_engine_config, gso_segments));
        assert_eq!(config.gso_segments, defaults.gso_segments);
        assert!(!told(&text, "gso_segments") && told(&text, "pin = "), "{text}");
        // Before pin came, and with it the placement.
        let size = offset_of!(trunk_engine_config, forward_queue);
        let (config, text) = loaded(c"ice", size);
        assert_eq!((config.struct_size as usize, config.pin), (size, defaults.pin));
        for setting in ["pin", "placement", "gso_segments"] {
            assert!(!told(&text, setting), "{text}");
        }
        assert!(told(&text, "socket_buffer_bytes = "), "{text}");
    }

    #[test]
    fn the_placement_is_what_the_profile_says() {
        let folder = std::env::temp_dir();
        for (placement, pin) in [("near", PIN_NEAR), ("any", 1)] {
            let path = folder.join(format!("trunk-{placement}-{}.toml", std::process::id()));
            let text = format!(
                "name = \"x\"\ndescription = \"x\"\ndrivers = []\n\
                 [engine.pin]\nvalue = true\nwhy = \"because of this test\"\n\
                 [engine.placement]\nvalue = \"{placement}\"\nwhy = \"because of this test\"\n"
            );
            std::fs::write(&path, text).unwrap();
            let which = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
            let (config, text) = loaded(&which, size_of::<trunk_engine_config>());
            std::fs::remove_file(&path).unwrap();
            assert_eq!(config.pin, pin, "{text}");
            assert!(told(&text, "placement = processors "), "{text}");
        }
    }
}
