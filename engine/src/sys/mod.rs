//! System calls that no crate offers, in small safe wrappers.
//!
//! `linux/` holds everything that only Linux has; `portable.rs` does the same jobs with what the
//! standard library offers. Both export the same names, so that nothing above this module asks
//! which system it runs on.
