//! What `send` and `recv` share: the file transfer protocol of `docs/file-transfer.md`, safe file
//! names, and how progress is shown.

pub mod names;
pub mod report;
pub mod wire;

/// Under which service receivers announce themselves.
pub const SERVICE: &str = "trunkline.files";
