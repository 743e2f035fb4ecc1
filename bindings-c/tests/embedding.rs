//! The documents for embedders say what is so: each name of the C interface in them is declared in
//! the header, each function of the header is in `docs/embedding.md`, each Rust name of its tables is
//! in the sources, settings and events are all there, and the programs compile.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

const EMBEDDING: &str = "docs/embedding.md";
const PORTING: [&str; 2] = ["docs/porting-gamenetworkingsockets.md", "docs/porting-enet.md"];
const HEADER: &str = "bindings-c/include/trunkline.h";

/// Structs of settings, of which every field is documented: those of C, and those of Rust with their
/// files.
const C_SETTINGS: [&str; 5] = [
    "trunk_engine_config",
    "trunk_connection_config",
    "trunk_listen_config",
    "trunk_connect_config",
    "trunk_channel_options",
];
const RUST_SETTINGS: [(&str, &str); 5] = [
    ("engine/src/config.rs", "EngineConfig"),
    ("engine/proto/src/config.rs", "ConnectionConfig"),
    ("engine/src/config.rs", "ListenConfig"),
    ("engine/src/config.rs", "ConnectConfig"),
    ("engine/proto/src/config.rs", "ChannelOptions"),
];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(repository().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The words of a text, each with what follows it.
fn words_with_rest(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let start = rest.find(is_word)?;
        let tail = &rest[start..];
        let end = tail.find(|c: char| !is_word(c)).unwrap_or(tail.len());
        rest = &tail[end..];
        Some((&tail[..end], rest))
    })
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    words_with_rest(text).map(|(word, _)| word)
}

fn is_c_name(word: &str) -> bool {
    word.starts_with("trunk_") || word.starts_with("TRUNK_")
}

/// A document: the texts between backticks with their lines, outside of fenced blocks, and the
/// contents of these blocks with their first lines.
struct Document {
    name: &'static str,
    spans: Vec<(usize, String)>,
    /// Those of the spans that stand in a column named `Rust`.
    rust: Vec<(usize, String)>,
    blocks: Vec<(usize, String)>,
}

fn spans(text: &str) -> impl Iterator<Item = String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned)
}

fn document(name: &'static str) -> Document {
    let mut document = Document { name, spans: Vec::new(), rust: Vec::new(), blocks: Vec::new() };
    let mut block: Option<(usize, String)> = None;
    let mut rust_column = None;
    for (i, line) in read(name).lines().enumerate() {
        let number = i + 1;
        if line.starts_with("```") {
            match block.take() {
                Some(whole) => document.blocks.push(whole),
                None => block = Some((number, String::new())),
            }
            continue;
        }
        if let Some((_, text)) = &mut block {
            text.push_str(line);
            text.push('\n');
            continue;
        }
        assert!(line.matches('`').count().is_multiple_of(2), "{name}:{number}: an odd backtick");
        document.spans.extend(spans(line).map(|code| (number, code)));
        if !line.starts_with('|') {
            rust_column = None;
            continue;
        }
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        match rust_column {
            Some(at) => {
                let cell = cells.get(at).copied().unwrap_or_default();
                document.rust.extend(spans(cell).map(|code| (number, code)));
            }
            None => rust_column = cells.iter().position(|cell| *cell == "Rust"),
        }
    }
    assert!(block.is_none(), "{name}: a block does not end");
    document
}

/// What the header declares.
struct Header {
    names: BTreeSet<String>,
    functions: BTreeSet<String>,
    /// Fields of structs and unions.
    fields: BTreeMap<String, BTreeSet<String>>,
}

fn header() -> Header {
    let text = read(HEADER);
    let mut code = String::new();
    let mut outside = true;
    for line in text.lines() {
        let line = line.trim();
        outside &= !line.starts_with("/*");
        if outside && !line.starts_with("//") {
            code.push_str(line);
            code.push('\n');
        }
        outside |= line.ends_with("*/");
    }
    let mut header =
        Header { names: BTreeSet::new(), functions: BTreeSet::new(), fields: BTreeMap::new() };
    for (word, rest) in words_with_rest(&code) {
        if word == "TRUNK_DEFINE_INIT" {
            // Defines an initialiser for each struct; the last time, it is undefined.
            header.names.extend(words(rest).next().map(|name| format!("{name}_init")));
        } else if is_c_name(word) {
            header.names.insert(word.to_owned());
            if rest.starts_with('(') {
                header.functions.insert(word.to_owned());
            }
        }
    }
    let mut of: Option<String> = None;
    for line in code.lines() {
        let starts = ["typedef struct ", "typedef union "]
            .iter()
            .find_map(|start| line.strip_prefix(*start)?.strip_suffix(" {"));
        if let Some(name) = starts {
            of = Some(name.to_owned());
        } else if line.starts_with('}') {
            of = None;
        } else if let (Some(name), Some(field)) = (&of, line.strip_suffix(';')) {
            let field = field.split('[').next().unwrap_or_default();
            let field = words(field).last().expect("a field has a name").to_owned();
            header.fields.entry(name.clone()).or_default().insert(field);
        }
    }
    assert!(header.functions.len() > 100 && header.fields.len() > 30, "the header was not read");
    header
}

/// What is wrong with the C names of a text.
fn undeclared(header: &Header, code: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for (word, rest) in words_with_rest(code).filter(|(word, _)| is_c_name(word)) {
        // `trunk_pairing_*` stands for several.
        let known = if word.ends_with('_') {
            header.names.iter().any(|name| name.starts_with(word))
        } else {
            header.names.contains(word)
        };
        let field = rest.strip_prefix('.').filter(|rest| rest.starts_with(is_word));
        if !known {
            wrong.push(format!("{word} is not declared"));
        } else if let Some(field) = field.and_then(|rest| words(rest).next())
            && !header.fields.get(word).is_some_and(|fields| fields.contains(field))
        {
            wrong.push(format!("{word} has no field {field}"));
        }
    }
    wrong
}

fn all_right(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_c_name_is_declared() {
    let header = header();
    let mut wrong = Vec::new();
    for name in [EMBEDDING, PORTING[0], PORTING[1]] {
        for (line, code) in document(name).spans {
            let errors = undeclared(&header, &code);
            wrong.extend(errors.iter().map(|error| format!("{name}:{line}: {error}")));
        }
    }
    all_right(&wrong);
}

/// The C names of the document, those of fields as `struct.field`.
fn named(document: &Document) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    for (_, code) in &document.spans {
        for (word, rest) in words_with_rest(code).filter(|(word, _)| is_c_name(word)) {
            named.insert(word.to_owned());
            if let Some(field) = rest.strip_prefix('.').and_then(|rest| words(rest).next()) {
                named.insert(format!("{word}.{field}"));
            }
        }
    }
    named
}

#[test]
fn every_function_setting_and_item_of_c_is_documented() {
    let header = header();
    let named = named(&document(EMBEDDING));
    let functions = header.functions.iter().map(|name| match name.strip_suffix("_init_sized") {
        Some(of) => format!("{of}_init"),
        None => name.clone(),
    });
    let fields = C_SETTINGS.iter().flat_map(|name| {
        let fields = header.fields.get(*name).unwrap_or_else(|| panic!("no struct {name}"));
        let fields = fields.iter().filter(|f| !matches!(f.as_str(), "struct_size" | "reserved"));
        fields.map(move |field| format!("{name}.{field}"))
    });
    let items = header.names.iter().filter(|name| name.starts_with("TRUNK_ITEM_")).cloned();
    let missing: Vec<String> = functions
        .chain(fields)
        .chain(items)
        .filter(|name| !named.contains(name))
        .map(|name| format!("{name} is not in {EMBEDDING}"))
        .collect();
    all_right(&missing);
}

/// The Rust files below a folder.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    for entry in entries {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_rust_name_is_in_the_sources() {
    let mut paths = Vec::new();
    files(&repository().join("engine/src"), &mut paths);
    files(&repository().join("engine/proto/src"), &mut paths);
    let texts: Vec<String> =
        paths.iter().map(|path| std::fs::read_to_string(path).expect("readable")).collect();
    let sources: Vec<BTreeSet<&str>> = texts.iter().map(|text| words(text).collect()).collect();
    let mut wrong = Vec::new();
    let document = document(EMBEDDING);
    for (line, code) in &document.rust {
        // Type and member stand in one file.
        let parts: Vec<&str> = words(code).collect();
        if !sources.iter().any(|words| parts.iter().all(|part| words.contains(part))) {
            wrong.push(format!("{}:{line}: no file has {}", document.name, parts.join(" and ")));
        }
    }
    assert!(document.rust.len() > 200, "the tables were not read");
    all_right(&wrong);
}

/// The lines of an item of a source file, from the one that starts so to its closing brace.
fn body<'a>(text: &'a str, start: &str) -> impl Iterator<Item = &'a str> + use<'a> {
    let at = text.find(start).unwrap_or_else(|| panic!("no {start}"));
    text[at..].lines().skip(1).take_while(|line| !line.starts_with('}'))
}

/// Names of the public functions in the blocks `impl TYPE {` of the queued API.
fn public_functions(of: &str) -> BTreeSet<String> {
    let mut paths = Vec::new();
    files(&repository().join("engine/src/queue"), &mut paths);
    let start = format!("impl {of} {{");
    let mut found = BTreeSet::new();
    for path in paths {
        let text = std::fs::read_to_string(path).expect("readable");
        let mut inside = false;
        for line in text.lines() {
            if !line.starts_with(' ') && !line.is_empty() {
                inside = line == start;
            }
            let function = line
                .strip_prefix("    pub fn ")
                .or_else(|| line.strip_prefix("    pub const fn "))
                .filter(|_| inside);
            found.extend(function.and_then(|rest| words(rest).next()).map(str::to_owned));
        }
    }
    assert!(!found.is_empty(), "{of} has no functions");
    found
}

#[test]
fn every_setting_event_and_call_of_rust_is_documented() {
    let document = document(EMBEDDING);
    let named: BTreeSet<&str> = document.rust.iter().map(|(_, code)| code.as_str()).collect();
    let mut wanted = Vec::new();
    for (path, name) in RUST_SETTINGS {
        let text = read(path);
        let fields = body(&text, &format!("pub struct {name} {{"))
            .filter_map(|line| line.strip_prefix("    pub "))
            .filter_map(|rest| words(rest).next());
        wanted.extend(fields.map(|field| format!("{name}::{field}")));
    }
    let text = read("engine/src/queue/event.rs");
    let variants = body(&text, "pub enum Event {")
        .filter_map(|line| line.strip_prefix("    "))
        .filter(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase()))
        .filter_map(|rest| words(rest).next());
    wanted.extend(variants.map(|variant| format!("Event::{variant}")));
    for of in ["QueuedEngine", "PollGroup"] {
        wanted.extend(public_functions(of).iter().map(|name| format!("{of}::{name}")));
    }
    assert!(wanted.len() > 150, "the sources were not read: {}", wanted.len());
    let missing: Vec<String> = wanted
        .iter()
        .filter(|name| !named.contains(name.as_str()))
        .map(|name| format!("{name} is not in {EMBEDDING}"))
        .collect();
    all_right(&missing);
}

/// The example in the header's introduction, inside a function.
fn introduction() -> String {
    let text = read(HEADER);
    let lines = text.lines().map(|line| line.strip_prefix(" *     ").unwrap_or("// no code"));
    let from_start = lines.skip_while(|line| *line != "trunk_item items[64];");
    let code: Vec<&str> = from_start.take_while(|line| *line != "// no code").collect();
    assert!(code.len() > 10 && code.last() == Some(&"}"), "the introduction has an example");
    let code = code.join("\n");
    format!(
        "#include <stdio.h>\n#include <trunkline.h>\n\
         void take(trunk_engine *engine);\nvoid take(trunk_engine *engine) {{\n{code}\n}}\n"
    )
}

#[test]
fn the_programs_compile() {
    let cc = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let include = repository().join("bindings-c/include");
    let mut count = 0;
    let mut programs = vec![(HEADER, 0, introduction())];
    for name in [EMBEDDING, PORTING[0], PORTING[1]] {
        for (line, program) in document(name).blocks {
            if !program.contains("#include <trunkline.h>") {
                continue;
            }
            programs.push((name, line, program));
        }
    }
    for (name, line, program) in programs {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("document-{}-{count}.c", std::process::id()));
        std::fs::write(&file, program).expect("a writable target folder");
        let output = Command::new(&cc)
            .args(["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only"])
            .arg("-I")
            .arg(&include)
            .arg(&file)
            .output()
            .expect("a C compiler: cc, or what $CC names");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}:{line}: {said}");
        std::fs::remove_file(&file).expect("it was written");
        count += 1;
    }
    assert!(count >= 6, "only {count} programs");
}
