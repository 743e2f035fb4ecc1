//! The interface as a table in C, made of the header: every function with a way to call it, every
//! struct that may grow with its fields. `tests/c/interface.h` says what is in it and includes it.
//! Tests that go through the table cover what is added to the header without being changed.

use super::header::{Aggregate, Callback, Function, Header, Named};
use std::fmt::{Result, Write as _};
use std::path::Path;
use std::sync::OnceLock;

/// The folder with `table.inc`, for `-I`. Made once for each test binary.
pub fn folder() -> &'static Path {
    static FOLDER: OnceLock<super::Folder> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = super::Folder::new();
        let mut code = String::new();
        write(&Header::read(), &mut code).expect("a text");
        std::fs::write(folder.path().join("table.inc"), code).expect("a writable folder");
        folder
    });
    folder.path()
}

fn write(header: &Header, code: &mut String) -> Result {
    code.push_str("/* Made of trunkline.h by tests/common/table.rs. */\n\n");
    for callback in &header.callbacks {
        write_stub(callback, code)?;
    }
    for function in &header.functions {
        write_call(header, function, code)?;
    }
    code.push_str("static const function functions[] = {\n");
    for Function { name, params, .. } in &header.functions {
        let count = params.len();
        writeln!(code, "    {{\"{name}\", call_{name}, {count}, params_{name}, errors_{name}}},")?;
    }
    code.push_str("};\n\n");
    let sized = || header.aggregates.iter().filter(|one| header.initialised.contains(&one.name));
    for one in sized() {
        write_fields(header, one, code)?;
    }
    code.push_str("static const sized structs[] = {\n");
    for Aggregate { name, fields, .. } in sized() {
        let count = fields.len();
        writeln!(
            code,
            "    {{\"{name}\", sizeof({name}), offsetof(struct {{ char c; {name} at; }}, at),\n\
             \x20    init_{name}, {count}, fields_{name}}},"
        )?;
    }
    code.push_str("};\n\nstatic const callback callbacks[] = {\n");
    for Callback { name, .. } in &header.callbacks {
        writeln!(code, "    {{\"{name}\", (uintptr_t)stub_{name}}},")?;
    }
    code.push_str("};\n");
    Ok(())
}

/// A callback that does nothing.
fn write_stub(Callback { name, result, params }: &Callback, code: &mut String) -> Result {
    let list: Vec<_> =
        params.iter().enumerate().map(|(i, param)| format!("{} p{i}", param.type_)).collect();
    let list = if list.is_empty() { "void".to_owned() } else { list.join(", ") };
    writeln!(code, "static {result} stub_{name}({list}) {{")?;
    for i in 0..params.len() {
        writeln!(code, "    (void)p{i};")?;
    }
    if result != "void" {
        code.push_str("    return 0;\n");
    }
    code.push_str("}\n\n");
    Ok(())
}

/// A function with its arguments in an array of 64-bit values, and what its comment says of them.
fn write_call(header: &Header, function: &Function, code: &mut String) -> Result {
    let Function { name, result, params, .. } = function;
    let mut casts = Vec::new();
    for (i, Named { type_, .. }) in params.iter().enumerate() {
        let is_pointer = type_.ends_with('*') || header.is_callback(type_);
        let through = if is_pointer { "(uintptr_t)" } else { "" };
        casts.push(format!("({type_}){through}a[{i}]"));
    }
    let call = format!("{name}({})", casts.join(", "));
    writeln!(code, "static trunk_result call_{name}(const uint64_t *a) {{")?;
    code.push_str("    (void)a;\n");
    if result == "trunk_result" {
        writeln!(code, "    return {call};\n}}")?;
    } else {
        writeln!(code, "    {call};\n    return TRUNK_OK;\n}}")?;
    }
    writeln!(code, "static const param params_{name}[] = {{")?;
    for param in params {
        let flags = [
            (param.is_pointer(), "IS_POINTER"),
            (param.is_read_only(), "IS_READ_ONLY"),
            (param.is_store(), "IS_STORE"),
            (header.is_handle(&param.type_), "IS_HANDLE"),
            (header.is_callback(&param.type_), "IS_CALLBACK"),
            (Header::may_be_null(function, param), "MAY_BE_NULL"),
        ];
        let flags: Vec<_> = flags.iter().filter(|one| one.0).map(|one| one.1).collect();
        let flags = if flags.is_empty() { "0".to_owned() } else { flags.join(" | ") };
        let sized = param.points_to().and_then(|name| header.sized(name));
        let of = sized.map_or_else(|| "NULL".to_owned(), |one| format!("\"{}\"", one.name));
        writeln!(code, "    {{\"{}\", \"{}\", {of}, {flags}}},", param.type_, param.name)?;
    }
    // An array may not be empty.
    code.push_str("    {NULL, NULL, NULL, 0},\n};\n");
    let mut errors = header.errors(function);
    if params.first().is_some_and(|param| param.type_ == "struct trunk_engine *") {
        // The introduction of the header says so of all of them.
        for general in ["TRUNK_ERR_NULL", "TRUNK_ERR_INVALID_HANDLE", "TRUNK_ERR_FORKED"] {
            errors.insert(general.to_owned());
        }
    }
    writeln!(code, "static const trunk_result errors_{name}[] = {{")?;
    for error in errors {
        writeln!(code, "    {error},")?;
    }
    code.push_str("    TRUNK_OK,\n};\n\n");
    Ok(())
}

fn write_fields(
    header: &Header,
    Aggregate { name, fields, .. }: &Aggregate,
    code: &mut String,
) -> Result {
    writeln!(
        code,
        "static trunk_result init_{name}(void *at, size_t size) {{\n\
         \x20   return {name}_init_sized(at, size);\n}}"
    )?;
    writeln!(code, "static const field fields_{name}[] = {{")?;
    for field in fields {
        let sized = field.points_to().and_then(|name| header.sized(name));
        let of = sized.map_or_else(|| "NULL".to_owned(), |one| format!("\"{}\"", one.name));
        let Named { name: field, type_ } = field;
        writeln!(
            code,
            "    {{\"{type_}\", \"{field}\", offsetof({name}, {field}),\n\
             \x20    sizeof((({name} *)0)->{field}), {of}}},"
        )?;
    }
    code.push_str("};\n\n");
    Ok(())
}
