//! The programs in `tests/c` once more, with something that watches every access to memory:
//! AddressSanitizer with UndefinedBehaviorSanitizer and leak detection, and valgrind.
//!
//! AddressSanitizer is compiled into the programs only. Of the library it sees what goes through
//! malloc, free and the functions of the C library: leaks, double frees, copies beyond an end.
//! valgrind sees every access, and takes a hundred times as long; it runs a selection.
//! CONTRIBUTING.md says how the library itself is built with AddressSanitizer, and with
//! ThreadSanitizer: data races are only looked for then.
//!
//! A machine without the tools skips this, unless `TRUNKLINE_SANITIZERS_REQUIRED` is set.
#![cfg(target_os = "linux")]

mod common;

use common::suite::{Suite, sources};
use common::{Folder, Link, SLOW_LIMIT, compile, compile_cpp_with, compile_with, run, succeeded};
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

const REQUIRED: &str = "TRUNKLINE_SANITIZERS_REQUIRED";

const OPTIONS: [&str; 3] =
    ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"];

/// Tests that valgrind runs, in one process for each program, because it takes seconds to start.
/// They make engines only with the settings of `harness.h`: valgrind does not know io_uring.
const SELECTED: [(&str, &[&str]); 5] = [
    ("tests/c/discovery.c", &["found_changed_and_lost", "little_room", "own_event_loop"]),
    ("tests/c/data.c", &["messages_keep_their_borders", "buffers", "items_outlive_everything"]),
    ("tests/c/life.c", &["whole_life", "whole_life_without_threads", "rejected"]),
    ("tests/c/limits.c", &["send_buffers_come_back", "everything_at_once"]),
    ("tests/c/robust.c", &["zeros", "initialisers", "wrong_handles", "destroyed_engines"]),
];

/// Says that something is missing; a panic where it must not be.
fn skip(what: &str) {
    assert!(std::env::var_os(REQUIRED).is_none(), "{REQUIRED} is set, and {what}");
    eprintln!("skipped: {what}");
}

/// Whether a compiler makes programs with AddressSanitizer that run here and report leaks.
fn is_able(cc: &OsStr, folder: &Path) -> bool {
    let try_one = |name: &str, body: &str| {
        let (source, exe) = (folder.join(format!("{name}.c")), folder.join(name));
        let code = format!("#include <stdlib.h>\nint main(void) {{ {body} return 0; }}\n");
        std::fs::write(&source, code).expect("a writable folder");
        let made = Command::new(cc).args(OPTIONS).arg(&source).arg("-o").arg(&exe).output();
        made.is_ok_and(|made| made.status.success())
            .then(|| run(Command::new(exe).env("ASAN_OPTIONS", "detect_leaks=1")).status.success())
    };
    let clean = try_one("clean", "void *volatile p = malloc(8); free(p);");
    let leaks = try_one("leaks", "void *volatile p = malloc(8); p = NULL;");
    clean == Some(true) && leaks == Some(false)
}

/// A compiler with sanitizers: clang, or else the C compiler, if it can.
fn sanitizing() -> Option<&'static OsStr> {
    static FOUND: OnceLock<Option<OsString>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let folder = Folder::new();
        let cc = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
        ["clang".into(), cc].into_iter().find(|cc| is_able(cc, folder.path()))
    });
    found.as_deref()
}

/// All tests of all programs under AddressSanitizer.
fn run_sanitized(link: Link, variables: &[(&str, &str)]) {
    let Some(cc) = sanitizing() else {
        skip(
            "no compiler here makes programs with AddressSanitizer and leak detection (clang, \
              libclang-rt-dev)",
        );
        return;
    };
    let cxx = match (cc.to_str(), std::env::var_os("CXX")) {
        (Some("clang"), _) => "clang++".into(),
        (_, cxx) => cxx.unwrap_or_else(|| "c++".into()),
    };
    let wrapper = [&OPTIONS[..], &["-std=c++17"]].concat();
    let wrapper = compile_cpp_with(&cxx, &wrapper, "tests/c/wrapper.cpp", link);
    let programs = sources().into_iter().map(|source| compile_with(cc, &OPTIONS, &source, link));
    for program in programs.chain([wrapper]) {
        let mut suite = Suite::new(program)
            .with("TEST_MEMORY_CHECKED", "1")
            .with("ASAN_OPTIONS", "detect_leaks=1")
            .with("UBSAN_OPTIONS", "print_stacktrace=1");
        for (name, value) in variables {
            suite = suite.with(name, value);
        }
        // A forked child has the memory of its parent's engines for good: of threads that it does
        // not have, and of rings that it must not touch.
        suite.run_those(2, |name| !name.contains("fork"));
        suite.with("ASAN_OPTIONS", "detect_leaks=0").run_those(2, |name| name.contains("fork"));
    }
}

#[test]
fn address_sanitizer() {
    run_sanitized(Link::Shared, &[]);
}

#[test]
fn address_sanitizer_with_mio() {
    run_sanitized(Link::Static, &[("TEST_WITH_MIO", "1")]);
}

/// Data races. What threads decide with atomics is only understood where it is compiled in: with a
/// plain library (and under helgrind or DRD always) everything that changes hands counts as a race.
#[test]
fn thread_sanitizer() {
    if !std::env::var("RUSTFLAGS").is_ok_and(|flags| flags.contains("-Zsanitizer=thread")) {
        eprintln!("skipped: the library is built without ThreadSanitizer");
        return;
    }
    // The library calls its compiler's own runtime, which clang's may be too old for.
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let libraries = succeeded(&run(Command::new(rustc).arg("--print=target-libdir")));
    let runtime = format!("{}/librustc-nightly_rt.tsan.a", libraries.trim());
    let options = [
        "-fsanitize=thread",
        "-fno-sanitize-link-runtime",
        "-Wl,--export-dynamic,--whole-archive",
        &runtime,
        "-Wl,--no-whole-archive",
        "-ldl",
        "-lm",
    ];
    let program = compile_with("clang".as_ref(), &options, "tests/c/threads.c", Link::Shared);
    let mut suite = Suite::new(program).with("TEST_WITH_MIO", "1").with("TEST_EACH", "1000");
    suite.limit = SLOW_LIMIT;
    suite.run_all();
}

/// What valgrind says for no reason. `valgrind.supp` has the rest; patterns do not reach here.
fn suppressions() -> String {
    let mut text = std::fs::read_to_string(common::root().join("tests/c/valgrind.supp"))
        .expect("the suppressions");
    for i in 0..64 {
        write!(
            text,
            "{{\n   sealed_packets\n   Memcheck:Param\n   \
             sendmsg(mmsg[{i}].msg_hdr.msg_iov[0])\n   fun:sendmmsg\n}}\n"
        )
        .expect("a text");
    }
    text
}

#[test]
fn valgrind() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        skip("there is no valgrind");
        return;
    }
    let folder = Folder::new();
    let file = folder.path().join("suppressions");
    std::fs::write(&file, suppressions()).expect("a writable folder");
    for (source, names) in SELECTED {
        let mut suite = Suite::new(compile(source, Link::Shared))
            .with("TEST_MEMORY_CHECKED", "1")
            .with("TEST_WITH_MIO", "1");
        suite.limit = SLOW_LIMIT;
        suite.tool = ["valgrind", "-q", "--error-exitcode=99", "--leak-check=full"]
            .map(OsString::from)
            .to_vec();
        // The standard library keeps a thread's own description by a pointer into its middle, which
        // is possibly lost.
        suite.tool.push("--errors-for-leak-kinds=definite".into());
        suite.tool.push(format!("--suppressions={}", file.display()).into());
        if let Some(failure) = suite.failure(names) {
            panic!("{source}: {failure}");
        }
    }
}
