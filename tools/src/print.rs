//! Standard output: lines for people, or objects for programs, one a line.

use crate::exit::Failure;
use serde_json::Value;
use std::io::{self, Write as _};

/// Prints `object` with `--json`, and `text` without.
pub fn result(json: bool, object: &Value, text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let printed = if json { writeln!(out, "{object}") } else { writeln!(out, "{text}") };
    printed.and_then(|()| out.flush()).map_err(failure)
}

/// Prints something that happens: with `--json` the fields and the name of the event.
pub fn event(json: bool, event: &str, mut fields: Value, text: &str) -> Result<(), Failure> {
    fields["event"] = event.into();
    result(json, &fields, text)
}

/// Standard output takes no more.
pub fn failure(error: io::Error) -> Failure {
    Failure::local(format!("cannot print: {error}"))
}
