//! The C interface of Trunkline: `include/trunkline.h` is made from this crate.
//!
//! It is the queued API of the engine in terms of C, and nothing else: no state of its own beyond
//! what C needs (handles as 64-bit values, user data, the last error of a thread).
//!
//! | file | what it has |
//! | --- | --- |
//! | `result` | codes, words, and the guard in which every exported function runs |
//! | `abi` | how structs, strings and arrays cross the boundary |
//! | `handle` | handles of connections, channels, listeners and groups |
//! | `fork`, `log`, `users` | fork detection, the log callback, user data |
//! | `config`, `profile`, `security` | settings, hardware profiles, identities, trust |
//! | `names` | what callbacks and calls need to turn names into handles |
//! | `instance`, `drive` | an engine's life; engines without threads |
//! | `fault` | faults for tests |
//! | `status`, `conn`, `info`, `sec_info` | connections |
//! | `stats` | counters of engines, shards and groups |
//! | `channel`, `channel_info`, `send`, `external` | channels and sending |
//! | `manager`, `association` | channels by name and peer, associations |
//! | `security_callback` | the application's say while connections are being made |
//! | `pairing`, `pairing_notice` | pairings over an event source: the calls, and what they tell |
//! | `detail`, `item`, `receive`, `callbacks` | what is received |
//! | `registry`, `object` | handles of what belongs to no engine, and who may be inside it |
//! | `credential`, `token` | credentials and access tokens: made and checked |
//! | `source`, `event_source` | an event source as a server |
//! | `presence`, `device`, `discovery` | finding devices of the local network |
//! | `announcement`, `announcer` | being found there |
//!
//! The documentation of exported items is written for the header, in terms of C.
//!
//! Rules that hold everywhere: no panic leaves a function (`guard`); pointers of the caller are
//! checked for NULL and used only during the call; a pointer that is not NULL points to what its
//! type says, which is the caller's part of the contract and all that the SAFETY comments mean by
//! "by contract"; a handle that is stale or foreign is an error.

#![cfg_attr(not(test), warn(clippy::print_stdout, clippy::print_stderr))]
#![allow(non_camel_case_types, reason = "the names are those of the C interface")]
#![allow(clippy::missing_safety_doc, reason = "the documentation is the header's")]

// In the order in which they appear in the header.
mod version;

mod result;

mod log;

mod config;

mod profile;

mod instance;

mod drive;

mod security;

mod status;

mod conn;

mod info;

mod sec_info;

mod stats;

mod fault;

mod channel;

mod channel_info;

mod send;

mod external;

mod detail;

mod item;

mod receive;

mod callbacks;

mod security_callback;

mod manager;

mod association;

mod pairing_notice;

mod pairing;

mod credential;

mod token;

mod source;

mod event_source;

mod presence;

mod device;

mod discovery;

mod announcement;

mod announcer;

mod abi;
mod fork;
mod handle;
mod names;
mod object;
mod registry;
mod users;
