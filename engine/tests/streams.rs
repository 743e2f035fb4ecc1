//! The tests of the inline and the queued API once more, over TLS and TCP instead of UDP.
#![allow(clippy::duplicate_mod, reason = "each of the tests brings what it shares with others")]

#[path = "inline.rs"]
mod inline;
#[path = "queued.rs"]
mod queued;
#[path = "queued_credit.rs"]
mod queued_credit;
