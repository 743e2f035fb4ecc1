//! The interface for C++, `trunkline.hpp`: for both standards, with and without exceptions.

mod common;

use common::header::Header;
use common::suite::Suite;
use common::{Link, compile_cpp, root, run, succeeded};
use std::process::Command;

const PROGRAM: &str = "tests/c/wrapper.cpp";

#[test]
fn with_cpp17() {
    Suite::new(compile_cpp(&["-std=c++17"], PROGRAM, Link::Shared)).run_all();
}

#[test]
fn with_cpp20_and_mio() {
    let program = compile_cpp(&["-std=c++20"], PROGRAM, Link::Static);
    Suite::new(program).with("TEST_WITH_MIO", "1").run_all();
}

#[test]
fn without_exceptions_and_rtti() {
    for standard in ["-std=c++17", "-std=c++20"] {
        let options = [standard, "-fno-exceptions", "-fno-rtti"];
        Suite::new(compile_cpp(&options, PROGRAM, Link::Shared)).run_those(2, |_| true);
    }
}

#[test]
fn echo() {
    for standard in ["-std=c++17", "-std=c++20"] {
        let program = compile_cpp(&[standard], "examples/echo.cpp", Link::Shared);
        let said = succeeded(&run(&mut Command::new(&program)));
        assert_eq!(said, "hello\nfrom\none process\n");
        let said = succeeded(&run(Command::new(&program).args(["one", "", "drei"])));
        assert_eq!(said, "one\n\ndrei\n");
    }
}

/// `trunk::init` knows every struct that has an initialiser in C.
#[test]
fn every_struct_is_initialised() {
    let text = std::fs::read_to_string(root().join("include/trunkline.hpp")).expect("the header");
    let header = Header::read();
    assert!(header.initialised.len() > 20, "the header was not read");
    for name in header.initialised {
        let short = name.strip_prefix("trunk_").expect("a prefix");
        assert!(text.contains(&format!("TRUNK_INIT_({short})")), "trunkline.hpp has no {name}");
    }
}
