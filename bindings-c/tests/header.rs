//! The header that is checked in is the one that the sources make.

use std::path::Path;

#[test]
fn the_header_is_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml")).expect("cbindgen.toml");
    let mut made = Vec::new();
    cbindgen::Builder::new()
        .with_config(config)
        .with_crate(root)
        .generate()
        .expect("the sources make a header")
        .write(&mut made);
    let made = String::from_utf8(made).expect("a text");
    let path = root.join("include/trunkline.h");
    if std::env::var_os("UPDATE_HEADER").is_some() {
        std::fs::write(&path, &made).expect("include/ is writable");
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stored == made,
        "include/trunkline.h is out of date: UPDATE_HEADER=1 cargo test -p trunkline-c --test header"
    );
}
