//! The tests of the inline and the queued API, of the manager and of pairing once more, over TLS and
//! TCP instead of UDP.

// Each module brings the same helpers, which ask where they are for the link.
#![allow(clippy::duplicate_mod)]

#[path = "inline.rs"]
mod inline;
#[path = "manager.rs"]
mod manager;
#[path = "pairing.rs"]
mod pairing;
#[path = "queued.rs"]
mod queued;
#[path = "queued_credit.rs"]
mod queued_credit;
