//! The binary interface of the library, as programs have it built in, against its description in
//! `abi/`: a C compiler says where the fields of the header's structs are, `nm` what the library
//! exports.
//!
//! ```text
//! UPDATE_ABI=1 cargo test -p trunkline-c --test abi          # additions only
//! UPDATE_ABI=breaking cargo test -p trunkline-c --test abi   # anything
//! ```
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[path = "abi/changes.rs"]
mod changes;
mod common;

use changes::Changes;
use common::header::{Aggregate, Header, Named};
use common::{Folder, Link, compile, exported, run, succeeded};
use std::fmt::Write as _;
use std::process::Command;

const STORED: &str = "abi/x86_64-linux.txt";

const INTRO: &str = "\
# The binary interface of libtrunkline on x86-64 Linux: what programs that use it have built in.
# Made by the test `abi`; CONTRIBUTING.md says how it may change.
";

/// A prototype without the names of its parameters, which programs do not have built in.
fn prototype(result: &str, params: &[Named]) -> String {
    let types: Vec<_> = params.iter().map(|param| param.type_.as_str()).collect();
    let types = if types.is_empty() { "void".to_owned() } else { types.join(", ") };
    format!("{result} ({types})")
}

/// The C statements that print a struct.
fn print_aggregate(code: &mut String, one: &Aggregate) -> std::fmt::Result {
    let (keyword, name) = (if one.is_union { "union" } else { "struct" }, &one.name);
    let growth = match (one.is_union, one.is_sized()) {
        (true, _) => "",
        (_, true) => ", may grow",
        _ => ", fixed",
    };
    writeln!(
        code,
        "    printf(\"{keyword} {name}: size %zu, alignment %zu{growth}\\n\", sizeof({name}),\n\
         \x20          offsetof(struct {{ char c; {name} at; }}, at));"
    )?;
    for Named { name: field, type_ } in &one.fields {
        writeln!(
            code,
            "    printf(\"field {name}.{field}: offset %zu, size %zu, {type_}\\n\",\n\
             \x20          offsetof({name}, {field}), sizeof((({name} *)0)->{field}));"
        )?;
    }
    Ok(())
}

/// A C program that prints what only a compiler knows.
fn program(header: &Header) -> Result<String, std::fmt::Error> {
    let mut code = String::from(
        "#include \"trunkline.h\"\n#include <stdio.h>\n\n\
         #define SIGN(type) ((type)-1 > (type)1 ? \"unsigned\" : \"signed\")\n\n\
         int main(void) {\n",
    );
    for one in &header.aggregates {
        print_aggregate(&mut code, one)?;
    }
    for name in &header.constants {
        writeln!(code, "    printf(\"constant {name}: %lld\\n\", (long long)({name}));")?;
    }
    for Named { name, .. } in &header.typedefs {
        writeln!(
            code,
            "    printf(\"type {name}: %zu bytes, %s\\n\", sizeof({name}), SIGN({name}));"
        )?;
    }
    code.push_str("    return 0;\n}\n");
    Ok(code)
}

/// The description of the library and the header as they are now.
fn described() -> String {
    let header = Header::read();
    let folder = Folder::new();
    let source = folder.path().join("abi.c");
    std::fs::write(&source, program(&header).expect("a text")).expect("a writable folder");
    let exe = compile(source.to_str().expect("a path"), Link::Shared);
    let mut lines: Vec<String> =
        succeeded(&run(&mut Command::new(exe))).lines().map(str::to_owned).collect();
    for symbol in exported() {
        let function = header.function(&symbol);
        let function = function.unwrap_or_else(|| panic!("{symbol} is not in the header"));
        let prototype = prototype(&function.result, &function.params);
        lines.push(format!("function {symbol}: {prototype}"));
    }
    for one in &header.callbacks {
        lines.push(format!("callback {}: {}", one.name, prototype(&one.result, &one.params)));
    }
    for name in &header.opaque {
        lines.push(format!("opaque {name}: known to the library only"));
    }
    for name in &header.initialised {
        lines.push(format!("inline {name}_init: trunk_result (struct {name} *)"));
    }
    // By kind and owner; within a struct the order of the fields stays.
    lines.sort_by_key(|line| {
        let key = line.split_once(": ").map_or("", |(key, _)| key);
        key.split('.').next().unwrap_or_default().to_owned()
    });
    format!("{INTRO}{}\n", lines.join("\n"))
}

#[test]
fn the_binary_interface_is_the_described_one() {
    let path = common::root().join(STORED);
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    let now = described();
    let Changes { additions, breaks, versions } = Changes::between(&stored, &now);
    let list = |title: &str, lines: &[String]| match lines {
        [] => String::new(),
        lines => format!("{title}\n  {}\n", lines.join("\n  ")),
    };
    let report = [
        list("Breaks programs that are built already:", &breaks),
        list("Additions:", &additions),
        list("Version:", &versions),
    ]
    .concat();
    let hint = if breaks.is_empty() {
        "additions may be stored: UPDATE_ABI=1 cargo test -p trunkline-c --test abi"
    } else {
        "a break needs a new TRUNK_VERSION_MAJOR (MINOR while MAJOR is 0) and with it a new soname. \
         Better is a new function or a new field at the end. If it has to be: \
         UPDATE_ABI=breaking cargo test -p trunkline-c --test abi"
    };
    match std::env::var("UPDATE_ABI").as_deref() {
        Ok("breaking") => {}
        Ok("1") => assert!(breaks.is_empty(), "not stored\n{report}{hint}"),
        Ok(other) => panic!("UPDATE_ABI={other}: it is 1 or breaking"),
        Err(_) => {
            assert!(stored == now, "{STORED} is not what the library has\n{report}{hint}");
            return;
        }
    }
    print!("{report}");
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a writable folder");
    std::fs::write(&path, &now).expect("a writable folder");
}

/// Bytes between fields belong to nobody: a program leaves anything in them, so that no later
/// version could give them a meaning. Fields named reserved keep such places for later.
#[test]
fn structs_have_no_holes() {
    let text = described();
    let facts = |kind: &str| -> Vec<(String, String)> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(kind)?.split_once(": "));
        lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    };
    let mut holes = Vec::new();
    for (name, value) in facts("struct ") {
        let mut end = 0;
        for (field, value) in facts(&format!("field {name}.")) {
            let offset = changes::number(&value, "offset");
            if offset != end {
                holes.push(format!("{name}: {} bytes before {field}", offset - end));
            }
            end = offset + changes::number(&value, "size");
        }
        if end != changes::number(&value, "size") {
            holes.push(format!("{name}: at its end"));
        }
    }
    assert!(holes.is_empty(), "{}", holes.join("\n"));
}

/// A caller's struct can be prepared: it has its function, and the inline one that knows its size.
#[test]
fn structs_of_callers_have_their_initialiser() {
    let header = Header::read();
    for function in &header.functions {
        let Some(name) = function.name.strip_suffix("_init_sized") else { continue };
        assert!(
            header.initialised.iter().any(|one| one == name),
            "{name}: TRUNK_DEFINE_INIT({name}) is missing in cbindgen.toml"
        );
        assert!(header.sized(name).is_some(), "{name} does not start with struct_size");
    }
    for function in &header.functions {
        for param in &function.params {
            let sized = param.points_to().and_then(|name| header.sized(name));
            let is_known = sized.is_none_or(|one| header.initialised.contains(&one.name));
            assert!(is_known, "{}: {} has no initialiser", function.name, param.type_);
        }
    }
}
