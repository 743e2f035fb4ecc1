//! Trunkline: the engine.

pub mod buf;
pub mod io;
pub mod sys;
