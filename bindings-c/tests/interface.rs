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
fn discovery() {
    run_all("tests/c/discovery.c", Link::Shared, Driver::Auto);
}
