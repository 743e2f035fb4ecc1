//! Which file names a receiver takes from a stranger, and how such names are shown.

/// Every partial file of a receiver starts with this.
pub const PARTIAL_PREFIX: &str = ".trunkline-";
/// Longest file name in bytes: what common file systems take.
pub const MAX_NAME: usize = 255;

/// Checks that `name` is one component that cannot lead out of a folder or do harm in a listing.
/// The error says what is wrong, for people.
pub fn check(name: &str) -> Result<(), &'static str> {
    check_for(name, cfg!(windows))
}

fn check_for(name: &str, windows: bool) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("the name is empty");
    }
    if name.len() > MAX_NAME {
        return Err("the name is longer than 255 bytes");
    }
    if name == "." || name == ".." {
        return Err("the name is a folder");
    }
    if name.contains('/') || name.contains('\0') {
        return Err("the name has a directory part");
    }
    if name.chars().any(char::is_control) {
        return Err("the name has control characters");
    }
    if name.starts_with(PARTIAL_PREFIX) {
        return Err("the name is reserved for partial files");
    }
    if windows { check_windows(name) } else { Ok(()) }
}

/// What Windows would read as a path, a stream, a device or another name.
fn check_windows(name: &str) -> Result<(), &'static str> {
    if name.contains(['\\', ':', '<', '>', '"', '|', '?', '*']) {
        return Err("the name has characters that Windows reserves");
    }
    if name.ends_with(['.', ' ']) {
        return Err("the name ends with a dot or a space");
    }
    let stem = name.split('.').next().unwrap_or(name).trim_end().to_ascii_uppercase();
    let device = matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$")
        || ["COM", "LPT"].iter().any(|port| {
            stem.strip_prefix(port).is_some_and(|n| {
                n.chars().count() == 1 && n.chars().all(|c| "0123456789¹²³".contains(c))
            })
        });
    if device { Err("the name is a device on Windows") } else { Ok(()) }
}

/// The `n`th alternative to a name that is taken: `name (n).ext`, kept within [`MAX_NAME`].
pub fn alternative(name: &str, n: u32) -> String {
    let dot = name.rfind('.').filter(|at| *at > 0).unwrap_or(name.len());
    let (stem, extension) = name.split_at(dot);
    let suffix = format!(" ({n})");
    let room = MAX_NAME.saturating_sub(suffix.len());
    // An extension too long to keep counts as part of the stem.
    let (stem, extension) = if extension.len() < room { (stem, extension) } else { (name, "") };
    let mut end = stem.len().min(room - extension.len());
    while !stem.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{suffix}{extension}", &stem[..end])
}

/// Text of a stranger made safe for a terminal: control characters escaped, length bounded.
pub fn printable(text: &str) -> String {
    const MAX_CHARS: usize = 300;
    let mut out = escaped(text.chars().take(MAX_CHARS));
    if text.chars().nth(MAX_CHARS).is_some() {
        out.push('…');
    }
    out
}

/// The same for text of any length.
pub fn escaped(text: impl Iterator<Item = char>) -> String {
    let mut out = String::new();
    for c in text {
        // Directional overrides could make a line read as something else.
        if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::{Component, Path};

    #[test]
    fn ordinary_names_pass() {
        for good in ["a", "report.pdf", "..a", "a..", "...", " spaced name ", "übung", "a:b", "con"]
        {
            assert_eq!(check_for(good, false), Ok(()), "{good}");
        }
        assert_eq!(check_for(&"x".repeat(255), false), Ok(()));
    }

    #[test]
    fn dangerous_names_do_not() {
        let long = "x".repeat(256);
        for bad in [
            "",
            ".",
            "..",
            "/",
            "/etc/passwd",
            "../x",
            "a/../../x",
            "a/b",
            "a\0b",
            "a\nb",
            "\u{1b}[2J",
            "\u{85}",
            ".trunkline-x.part",
            &long,
        ] {
            assert!(check_for(bad, false).is_err(), "{bad:?} passed");
        }
        for bad in
            ["..\\x", "C:x", "C:\\x", "nul", "NUL.txt", "com1", "LPT9.log", "a.", "a ", "a?b"]
        {
            assert!(check_for(bad, true).is_err(), "{bad:?} passed");
        }
        assert_eq!(check_for("common.txt", true), Ok(()));
        assert_eq!(check_for("com10", true), Ok(()));
    }

    #[test]
    fn alternatives() {
        assert_eq!(alternative("a.txt", 1), "a (1).txt");
        assert_eq!(alternative("a.tar.gz", 2), "a.tar (2).gz");
        assert_eq!(alternative(".hidden", 1), ".hidden (1)");
        assert_eq!(alternative("a", 10), "a (10)");
        for name in
            ["ü".repeat(127), format!("{}.txt", "ü".repeat(125)), format!("a.{}", "b".repeat(253))]
        {
            let other = alternative(&name, 99_999);
            assert!(other.len() <= MAX_NAME, "{}", other.len());
            assert_eq!(check(&other), Ok(()));
            assert_ne!(other, name);
        }
    }

    #[test]
    fn printing() {
        assert_eq!(printable("a\u{1b}[31m\nb"), "a\\u{1b}[31m\\nb");
        assert_eq!(printable("\u{202e}x"), "\\u{202e}x");
        assert_eq!(printable(&"x".repeat(1000)).chars().count(), 301);
    }

    proptest! {
        #[test]
        fn what_passes_is_one_plain_component(name in "\\PC{0,40}|[./\\\\a-c\\x00]{0,12}") {
            if check(&name).is_ok() {
                let path = Path::new(&name);
                let parts: Vec<_> = path.components().collect();
                prop_assert!(matches!(parts.as_slice(), [Component::Normal(part)] if **part == *name));
            }
        }
    }
}
