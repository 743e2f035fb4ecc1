//! The shared library exports what the header declares, and nothing else.

mod common;

use std::collections::BTreeSet;
use std::process::Command;

#[test]
#[cfg(target_os = "linux")]
fn only_the_declared_functions_are_exported() {
    let library = common::built().join("libtrunkline.so");
    let output = Command::new("nm")
        .args(["-D", "--defined-only", "--format=posix"])
        .arg(&library)
        .output()
        .expect("nm, which comes with the C compiler");
    let text = common::succeeded(&output);
    let exported: BTreeSet<String> =
        text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
    assert_eq!(exported, common::declared());
    assert!(exported.len() > 50, "{}", exported.len());
}
