//! The shared library exports what the header declares, and nothing else.

mod common;

#[test]
#[cfg(target_os = "linux")]
fn only_the_declared_functions_are_exported() {
    let exported = common::exported();
    assert_eq!(exported, common::declared());
    assert!(exported.len() > 50, "{}", exported.len());
    assert!(exported.iter().all(|name| name.starts_with("trunk_")));
}

/// The introduction of the header lists every function. `_fd` after `trunk_engine_poll` is
/// `trunk_engine_fd`.
#[test]
fn every_function_is_in_the_introduction() {
    let header = common::header::Header::read();
    let path = common::root().join("include/trunkline.h");
    let text = std::fs::read_to_string(path).expect("the header is there");
    let list = text.split("FUNCTIONS, in the order").nth(1).expect("a list of functions");
    let list = list.split("STRUCTS").next().unwrap_or_default();
    let mut listed = std::collections::BTreeSet::new();
    let mut last = "";
    for word in list.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')) {
        if word.starts_with("trunk_") {
            let known = header.function(word).is_some() || header.is_callback(word);
            assert!(known, "{word}: unknown");
            listed.insert(word.to_owned());
            last = word;
        } else if word.starts_with('_') {
            // After the longest part of the last name with which it is one.
            let starts = last.match_indices('_').map(|(at, _)| &last[..at]).rev();
            let mut names = starts.map(|start| format!("{start}{word}"));
            let found = names.find(|name| header.function(name).is_some());
            listed.insert(found.unwrap_or_else(|| panic!("{word} after {last}: unknown")));
        }
    }
    let missing: Vec<_> = header
        .functions
        .iter()
        .map(|one| one.name.as_str())
        .filter(|name| !name.ends_with("_init_sized") && !listed.contains(*name))
        .collect();
    assert!(missing.is_empty(), "not in the introduction: {missing:?}");
}

/// What the tests in C take from the comments of the header is in them.
#[test]
fn comments_are_understood() {
    let header = common::header::Header::read();
    let function = |name: &str| header.function(name).expect("it is declared");
    let errors = |name: &str| header.errors(function(name));
    let accept = errors("trunk_accept");
    assert!(accept.contains("TRUNK_ERR_WOULD_BLOCK"), "{accept:?}");
    let reject = errors("trunk_reject");
    assert!(reject.is_superset(&accept) && reject.contains("TRUNK_ERR_INVALID_ARGUMENT"));
    assert!(!accept.contains("TRUNK_ERR_INVALID_ARGUMENT"));
    assert!(errors("trunk_version").is_empty());
    for function in header.functions.iter().filter(|one| one.result == "trunk_result") {
        assert!(
            !header.errors(function).is_empty(),
            "{}: the comment has no errors",
            function.name
        );
    }
    let may_be_null = |name: &str, param: &str| {
        let function = function(name);
        let param = function.params.iter().find(|one| one.name == param);
        common::header::Header::may_be_null(function, param.expect("a parameter"))
    };
    assert!(may_be_null("trunk_engine_new", "config"));
    assert!(!may_be_null("trunk_engine_new", "engine"));
    assert!(may_be_null("trunk_engine_destroy", "engine"));
    assert!(may_be_null("trunk_reject", "text") && !may_be_null("trunk_reject", "engine"));
    assert!(may_be_null("trunk_conn_set_user", "user"));
    assert!(!may_be_null("trunk_conn_user", "user"));
}
