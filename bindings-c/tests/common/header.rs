//! What `include/trunkline.h` declares, with the comments of its functions.
//!
//! cbindgen makes the header, so its layout is regular. Whatever is not understood here is a panic:
//! nothing is left out of the tests that are made of it without a word.

use std::collections::BTreeSet;

/// A value with a name: a parameter or a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// As in the header, without the name: `const struct trunk_identity *`, `char [64]`.
    pub type_: String,
    pub name: String,
}

impl Named {
    /// Whether it is a pointer to data.
    pub fn is_pointer(&self) -> bool {
        self.type_.ends_with('*')
    }

    /// What it points to: `const char` of `const char *`.
    fn pointee(&self) -> Option<&str> {
        self.type_.strip_suffix('*').map(str::trim)
    }

    /// The struct of this interface that it points to, if it does.
    pub fn points_to(&self) -> Option<&str> {
        let inner = self.pointee()?;
        inner.strip_prefix("const ").unwrap_or(inner).strip_prefix("struct ")
    }

    /// Whether what it points to is only read.
    pub fn is_read_only(&self) -> bool {
        self.pointee().is_some_and(|inner| {
            inner.ends_with("*const") || (inner.starts_with("const ") && !inner.ends_with('*'))
        })
    }

    /// Whether numbers, bytes or pointers are stored where it points to.
    pub fn is_store(&self) -> bool {
        let is_plain = |inner: &str| inner != "void" && !inner.starts_with("struct ");
        !self.is_read_only() && self.pointee().is_some_and(is_plain)
    }
}

#[derive(Debug)]
pub struct Function {
    pub name: String,
    pub result: String,
    pub params: Vec<Named>,
    pub doc: String,
}

/// A struct or a union.
#[derive(Debug)]
pub struct Aggregate {
    pub name: String,
    pub is_union: bool,
    pub fields: Vec<Named>,
}

impl Aggregate {
    /// Whether it may grow.
    pub fn is_sized(&self) -> bool {
        self.fields.first().is_some_and(|field| field.name == "struct_size")
    }
}

/// A pointer to a function of the application.
#[derive(Debug)]
pub struct Callback {
    pub name: String,
    pub result: String,
    pub params: Vec<Named>,
}

#[derive(Debug, Default)]
pub struct Header {
    pub functions: Vec<Function>,
    pub aggregates: Vec<Aggregate>,
    pub callbacks: Vec<Callback>,
    /// Names of structs of which only the library knows what is in them.
    pub opaque: Vec<String>,
    pub typedefs: Vec<Named>,
    pub constants: Vec<String>,
    /// Structs with an inline `…_init`.
    pub initialised: Vec<String>,
}

impl Header {
    /// The header that is checked in.
    pub fn read() -> Self {
        let path = super::root().join("include/trunkline.h");
        Self::parse(&std::fs::read_to_string(path).expect("the header is there"))
    }

    pub fn parse(text: &str) -> Self {
        let mut header = Self::default();
        let mut lines = text.lines();
        let (mut doc, mut open) = (String::new(), String::new());
        while let Some(line) = lines.next() {
            let code = line.trim();
            if code.starts_with("//") {
                if open.is_empty() {
                    doc.push_str(code.trim_start_matches('/'));
                    doc.push(' ');
                }
            } else if code.starts_with("/*") {
                let mut last = code;
                while !last.ends_with("*/") {
                    last = lines.next().expect("a comment ends").trim();
                }
            } else if code.starts_with('#') {
                header.directive(code, &mut lines);
                doc.clear();
            } else if code.is_empty() {
                doc.clear();
            } else if let Some(name) = code.strip_prefix("TRUNK_DEFINE_INIT(") {
                header.initialised.push(name.trim_end_matches(')').to_owned());
            } else {
                open.push_str(code);
                open.push(' ');
                let is_closed = open.matches('{').count() == open.matches('}').count();
                if is_closed && code.ends_with(';') {
                    header.declaration(open.trim().trim_end_matches(';'), &doc);
                    doc.clear();
                    open.clear();
                }
            }
        }
        assert_eq!(open, "", "the header ends inside a declaration");
        header
    }

    fn directive<'a>(&mut self, code: &str, lines: &mut impl Iterator<Item = &'a str>) {
        if code == "#ifdef __cplusplus" {
            let _ = lines.find(|line| line.trim_start().starts_with("#endif"));
        } else if let Some(definition) = code.strip_prefix("#define ") {
            let mut last = code;
            while last.ends_with('\\') {
                last = lines.next().expect("a macro ends");
            }
            let (name, value) = definition.split_once(' ').unwrap_or((definition, ""));
            if !name.contains('(') && !value.is_empty() {
                self.constants.push(name.to_owned());
            }
        } else {
            let known = ["#ifndef TRUNKLINE_H", "#include ", "#endif", "#undef "];
            assert!(known.iter().any(|start| code.starts_with(start)), "unknown: {code}");
        }
    }

    fn declaration(&mut self, code: &str, doc: &str) {
        let Some(code) = code.strip_prefix("typedef ") else {
            self.functions.push(function(code, doc));
            return;
        };
        if let Some((head, rest)) = code.split_once('{') {
            let (body, name) = rest.rsplit_once('}').expect("a body ends");
            let is_union = head.starts_with("union ");
            assert!(is_union || head.starts_with("struct "), "unknown: {code}");
            let fields = body.split(';').map(str::trim).filter(|field| !field.is_empty());
            self.aggregates.push(Aggregate {
                name: name.trim().to_owned(),
                is_union,
                fields: fields.map(named).collect(),
            });
        } else if let Some((result, rest)) = code.split_once("(*") {
            let (name, params) = rest.split_once(')').expect("a name in parentheses");
            self.callbacks.push(Callback {
                name: name.to_owned(),
                result: result.trim().to_owned(),
                params: parameters(params),
            });
        } else if code.starts_with("struct ") {
            self.opaque.push(named(code).name);
        } else {
            self.typedefs.push(named(code));
        }
    }

    /// The struct of this name that may grow.
    pub fn sized(&self, name: &str) -> Option<&Aggregate> {
        self.aggregates.iter().find(|one| one.name == name && one.is_sized())
    }

    pub fn function(&self, name: &str) -> Option<&Function> {
        self.functions.iter().find(|one| one.name == name)
    }

    /// Whether a type is that of handles: a name for a 64-bit value.
    pub fn is_handle(&self, type_: &str) -> bool {
        self.typedefs.iter().any(|one| one.name == type_ && one.type_ == "uint64_t")
    }

    pub fn is_callback(&self, type_: &str) -> bool {
        self.callbacks.iter().any(|one| one.name == type_)
    }

    /// The errors that a function's comment names, those of other functions that it names for
    /// theirs included. What stands in parentheses explains them.
    pub fn errors(&self, function: &Function) -> BTreeSet<String> {
        let Some((_, listed)) = function.doc.split_once("Errors:") else { return BTreeSet::new() };
        let mut found = BTreeSet::new();
        for word in words(&without_parentheses(listed)) {
            if word.starts_with("TRUNK_ERR_") {
                found.insert(word.to_owned());
            } else if word.starts_with("trunk_") {
                let other = self.function(word).unwrap_or_else(|| panic!("{word}: unknown"));
                assert_ne!(other.name, function.name, "it has the errors that it has");
                found.extend(self.errors(other));
            }
        }
        found
    }

    /// Whether a function's comment says that a pointer may be NULL: it names both in one part of a
    /// sentence, or the pointer is the only one.
    pub fn may_be_null(function: &Function, param: &Named) -> bool {
        // Kept for the application, never looked at.
        if param.type_ == "void *" && param.name == "user" {
            return true;
        }
        let pointers = function.params.iter().filter(|param| param.is_pointer()).count();
        let text = function.doc.split("Errors:").next().unwrap_or_default();
        text.split([';', ':']).flat_map(|part| part.split(". ")).any(|part| {
            let has = |wanted: &str| words(part).any(|word| word == wanted);
            has("NULL") && (pointers == 1 || has(&param.name))
        })
    }
}

fn without_parentheses(text: &str) -> String {
    let mut depth = 0;
    let is_outside = |c: &char| {
        depth += i32::from(*c == '(');
        let outside = depth == 0;
        depth -= i32::from(*c == ')');
        outside
    };
    text.chars().filter(is_outside).collect()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(|word| !word.is_empty())
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// A declarator: `const char *name`, `uint8_t peer[32]`.
fn named(code: &str) -> Named {
    assert!(!code.contains('('), "unknown: {code}");
    let code = code.trim();
    let (front, array) = match code.find('[') {
        Some(at) => (&code[..at], format!(" {}", &code[at..])),
        None => (code, String::new()),
    };
    let start = front.rfind(|c| !is_word(c)).map_or(0, |at| at + 1);
    assert!(start > 0 && start < front.len(), "no type or no name: {code}");
    let type_ = front[..start].split_whitespace().collect::<Vec<_>>().join(" ");
    Named { type_: format!("{type_}{array}"), name: front[start..].to_owned() }
}

/// Parameters in parentheses.
fn parameters(code: &str) -> Vec<Named> {
    let inner = code.trim().strip_prefix('(').and_then(|code| code.strip_suffix(')'));
    let inner = inner.unwrap_or_else(|| panic!("no parameters: {code}"));
    match inner.trim() {
        "void" => Vec::new(),
        inner => inner.split(',').map(named).collect(),
    }
}

fn function(code: &str, doc: &str) -> Function {
    let at = code.find('(').unwrap_or_else(|| panic!("unknown: {code}"));
    let head = named(&code[..at]);
    let params = parameters(&code[at..]);
    Function { name: head.name, result: head.type_, params, doc: doc.trim().to_owned() }
}
