//! Tests of recovery as a whole.

mod core;
mod link;
mod sim;
