//! The interface from C: the programs in `tests/c`, each test in a process of its own.

mod common;

use common::suite::{Suite, sources};
use common::{Link, compile};

/// With the driver that is best here.
fn run_all(source: &str) {
    Suite::new(compile(source, Link::Shared)).run_all();
}

/// With the driver that works everywhere, and the static library.
fn run_all_with_mio(source: &str) {
    Suite::new(compile(source, Link::Static)).with("TEST_WITH_MIO", "1").run_all();
}

#[test]
fn arguments() {
    run_all("tests/c/arguments.c");
}

#[test]
fn life() {
    run_all("tests/c/life.c");
}

#[test]
fn life_with_mio() {
    run_all_with_mio("tests/c/life.c");
}

#[test]
fn data() {
    run_all("tests/c/data.c");
}

#[test]
fn data_with_mio() {
    run_all_with_mio("tests/c/data.c");
}

#[test]
fn watching() {
    run_all("tests/c/watching.c");
}

#[test]
fn watching_with_mio() {
    run_all_with_mio("tests/c/watching.c");
}

#[test]
fn limits() {
    run_all("tests/c/limits.c");
}

#[test]
fn limits_with_mio() {
    run_all_with_mio("tests/c/limits.c");
}

#[test]
fn robust() {
    run_all("tests/c/robust.c");
}

#[test]
fn robust_with_mio() {
    run_all_with_mio("tests/c/robust.c");
}

#[test]
fn inside() {
    run_all("tests/c/inside.c");
}

#[test]
fn inside_with_mio() {
    run_all_with_mio("tests/c/inside.c");
}

#[test]
fn callbacks() {
    run_all("tests/c/callbacks.c");
}

#[test]
fn callbacks_with_mio() {
    run_all_with_mio("tests/c/callbacks.c");
}

#[test]
fn manager() {
    run_all("tests/c/manager.c");
}

#[test]
fn manager_with_mio() {
    run_all_with_mio("tests/c/manager.c");
}

#[test]
fn no_program_is_left_out() {
    let here = include_str!("interface.rs");
    for source in sources() {
        assert!(here.contains(&format!("\"{source}\"")), "{source} is not run");
    }
}

#[test]
fn trust() {
    run_all("tests/c/trust.c");
}

#[test]
fn trust_with_mio() {
    run_all_with_mio("tests/c/trust.c");
}

#[test]
fn event_source() {
    run_all("tests/c/event_source.c");
}

#[test]
fn event_source_with_mio() {
    run_all_with_mio("tests/c/event_source.c");
}

#[test]
fn discovery() {
    run_all("tests/c/discovery.c");
}

#[test]
fn discovery_use() {
    run_all("tests/c/discovery_use.c");
}

#[test]
fn threads() {
    run_all("tests/c/threads.c");
}

#[test]
fn threads_with_mio() {
    run_all_with_mio("tests/c/threads.c");
}
