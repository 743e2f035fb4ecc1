//! The version of the library.

use std::ffi::c_char;

/// Version of this header: incompatible changes.
pub const TRUNK_VERSION_MAJOR: u32 = 0;
/// Version of this header: additions.
pub const TRUNK_VERSION_MINOR: u32 = 1;
/// Version of this header: corrections.
pub const TRUNK_VERSION_PATCH: u32 = 0;

/// The version of the library that is running: major << 16 | minor << 8 | patch.
///
/// Any thread, never blocks.
#[unsafe(no_mangle)]
pub extern "C" fn trunk_version() -> u32 {
    TRUNK_VERSION_MAJOR << 16 | TRUNK_VERSION_MINOR << 8 | TRUNK_VERSION_PATCH
}

/// The same as a static text, such as "0.1.0".
///
/// Any thread, never blocks.
#[unsafe(no_mangle)]
pub extern "C" fn trunk_version_str() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_has_the_version_of_the_crate() {
        let own = format!("{TRUNK_VERSION_MAJOR}.{TRUNK_VERSION_MINOR}.{TRUNK_VERSION_PATCH}");
        assert_eq!(own, env!("CARGO_PKG_VERSION"));
        assert_eq!(trunk_version(), 0x0000_0100);
    }
}
