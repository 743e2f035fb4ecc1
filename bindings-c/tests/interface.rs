//! The interface from C: the programs in `tests/c`, each test in a process of its own.

mod common;

use common::{Link, compile, run, succeeded};
use std::process::Command;

#[derive(PartialEq, Eq)]
enum Driver {
    Auto,
    Mio,
}

/// Runs every test that a program lists, and names all that fail.
fn run_all(source: &str, link: Link, driver: Driver) {
    let program = compile(source, link);
    let list = succeeded(&run(&mut Command::new(&program)));
    let mut failed = Vec::new();
    let mut count = 0;
    for name in list.lines() {
        let mut command = Command::new(&program);
        if driver == Driver::Mio {
            command.env("TEST_WITH_MIO", "1");
        }
        let output = run(command.arg(name));
        count += 1;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            failed.push(format!("{name}: {}\n{said}", output.status));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(count > 0, "{source} lists its tests");
}

#[test]
fn arguments() {
    run_all("tests/c/arguments.c", Link::Shared, Driver::Auto);
}

#[test]
fn life() {
    run_all("tests/c/life.c", Link::Shared, Driver::Auto);
}

#[test]
fn life_with_mio() {
    run_all("tests/c/life.c", Link::Static, Driver::Mio);
}

#[test]
fn data() {
    run_all("tests/c/data.c", Link::Shared, Driver::Auto);
}

#[test]
fn data_with_mio() {
    run_all("tests/c/data.c", Link::Static, Driver::Mio);
}

#[test]
fn callbacks() {
    run_all("tests/c/callbacks.c", Link::Shared, Driver::Auto);
}

#[test]
fn callbacks_with_mio() {
    run_all("tests/c/callbacks.c", Link::Static, Driver::Mio);
}

#[test]
fn manager() {
    run_all("tests/c/manager.c", Link::Shared, Driver::Auto);
}

#[test]
fn manager_with_mio() {
    run_all("tests/c/manager.c", Link::Static, Driver::Mio);
}

#[test]
fn trust() {
    run_all("tests/c/trust.c", Link::Shared, Driver::Auto);
}

#[test]
fn trust_with_mio() {
    run_all("tests/c/trust.c", Link::Static, Driver::Mio);
}

#[test]
fn event_source() {
    run_all("tests/c/event_source.c", Link::Shared, Driver::Auto);
}

#[test]
fn event_source_with_mio() {
    run_all("tests/c/event_source.c", Link::Static, Driver::Mio);
}
