//! Tests of the whole machine: two sides joined by an in-memory link.

mod auth;
mod hostile;
mod lossy;
mod net;
