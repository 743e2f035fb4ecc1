//! Doxygen finds a description of everything that the headers declare, and nothing to warn about.
//!
//! A machine without it skips this, unless `TRUNKLINE_DOXYGEN_REQUIRED` is set.

mod common;

use common::{Folder, root, run, succeeded};
use std::process::Command;

const REQUIRED: &str = "TRUNKLINE_DOXYGEN_REQUIRED";

#[test]
fn everything_is_described() {
    if Command::new("doxygen").arg("--version").output().is_err() {
        assert!(std::env::var_os(REQUIRED).is_none(), "{REQUIRED} is set, and there is no doxygen");
        eprintln!("skipped: there is no doxygen");
        return;
    }
    let folder = Folder::new();
    let (config, output) = (folder.path().join("Doxyfile"), folder.path().join("made"));
    std::fs::create_dir(&output).expect("a writable folder");
    let text = std::fs::read_to_string(root().join("Doxyfile")).expect("the configuration");
    let text = format!("{text}\nOUTPUT_DIRECTORY = \"{}\"\n", output.display());
    std::fs::write(&config, text).expect("a writable folder");
    let repository = root().parent().expect("the repository");
    succeeded(&run(Command::new("doxygen").arg(&config).current_dir(repository)));
    let page = |name: &str| std::fs::read_to_string(output.join("html").join(name)).expect(name);
    assert!(page("index.html").contains("THE LIFE OF A CONNECTION"));
    assert!(page("trunkline_8h.html").contains("trunk_engine_config_init"));
    assert!(page("classtrunk_1_1engine.html").contains("next_timeout"));
}
