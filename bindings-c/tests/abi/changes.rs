//! What a change of the description means to programs that were built before it.
//!
//! Such a program calls functions by name, passes structs that are as long as it knew them, and has
//! offsets and constants built in. So there may be more functions, constants and types, and structs
//! that state their size may have more fields at their end. Everything else breaks it.

use std::collections::BTreeMap;

/// The lines that differ, each under what it does.
#[derive(Debug, Default)]
pub struct Changes {
    pub additions: Vec<String>,
    /// With the reason.
    pub breaks: Vec<String>,
    /// The version in the header, which is there to change.
    pub versions: Vec<String>,
}

/// A description by kind and name: `field trunk_buf.data` has `offset 0, size 8, uint8_t *`.
type Facts<'a> = BTreeMap<&'a str, &'a str>;

fn facts(text: &str) -> Facts<'_> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(|line| line.split_once(": ").unwrap_or_else(|| panic!("no fact: {line}"))).collect()
}

/// A number behind a word: `number("offset 8, size 4", "size")` is 4.
pub fn number(value: &str, word: &str) -> u64 {
    let part = value.split(", ").find_map(|part| part.strip_prefix(word));
    part.and_then(|part| part.trim().parse().ok()).unwrap_or_else(|| panic!("no {word} in {value}"))
}

/// What a field is, its type last.
struct Field<'a> {
    offset: u64,
    end: u64,
    type_: &'a str,
}

impl<'a> Field<'a> {
    fn of(value: &'a str) -> Self {
        let offset = number(value, "offset");
        let type_ = value.splitn(3, ", ").nth(2).expect("a type");
        Self { offset, end: offset + number(value, "size"), type_ }
    }
}

impl Changes {
    /// From one description to the next.
    pub fn between(old: &str, new: &str) -> Self {
        let (old, new) = (facts(old), facts(new));
        let mut changes = Self::default();
        for (key, value) in &old {
            match new.get(key) {
                Some(now) if now == value => {}
                now => changes.changed(&new, key, value, now.copied()),
            }
        }
        for (key, value) in &new {
            if !old.contains_key(key) {
                changes.added(&old, key, value);
            }
        }
        changes
    }

    fn breaks(&mut self, key: &str, old: &str, new: Option<&str>, why: &str) {
        let now = new.map_or_else(|| "gone".to_owned(), |new| format!("now {new}"));
        self.breaks.push(format!("{key}: {old}; {now} ({why})"));
    }

    fn changed(&mut self, new: &Facts, key: &str, value: &str, now: Option<&str>) {
        let (kind, name) = key.split_once(' ').expect("kind and name");
        let why = match (kind, now) {
            ("constant", Some(now)) if name.starts_with("TRUNK_VERSION_") => {
                self.versions.push(format!("{key}: {now}"));
                return;
            }
            ("struct", Some(now)) if value.ends_with("may grow") => {
                let (size, after) = (number(value, "size"), number(now, "size"));
                let align = |value| number(value, "alignment");
                if after > size && align(value) == align(now) && now.ends_with("may grow") {
                    self.additions.push(format!("{key}: {now} (it was {value})"));
                    return;
                }
                if after < size {
                    "programs know fields that are missing now"
                } else {
                    "it may only get longer"
                }
            }
            ("struct" | "union", Some(_)) => "programs have its size built in",
            ("field", now) => {
                if is_free(name) {
                    // What takes its place is judged where it is added.
                    return;
                }
                match now.map(Field::of) {
                    Some(after) => {
                        let before = Field::of(value);
                        if after.offset == before.offset && is_longer_struct(&before, &after, new) {
                            self.additions.push(format!("{key}: {}", now.unwrap_or_default()));
                            return;
                        }
                        "programs have its place and type built in"
                    }
                    None if struct_of(name).is_some_and(|s| !new.contains_key(s.as_str())) => {
                        "the struct is gone"
                    }
                    None => "programs use it",
                }
            }
            ("constant", Some(_)) => "programs have its value built in",
            ("function", None) => "programs that use it do not start any more",
            (_, None) => "programs that use it cannot be built any more",
            ("function", Some(_)) => "programs call it the old way",
            ("callback", Some(_)) => "programs are called in a way that they do not know",
            (_, Some(_)) => "programs have it built in",
        };
        self.breaks(key, value, now, why);
    }

    fn added(&mut self, old: &Facts, key: &str, value: &str) {
        let line = format!("{key}: {value}");
        let in_old = key
            .strip_prefix("field ")
            .and_then(struct_of)
            .and_then(|owner| old.get(owner.as_str()).map(|value| (owner, *value)));
        if let Some((owner, before)) = in_old {
            let field = Field::of(value);
            let siblings = format!("field {}.", owner.trim_start_matches("struct "));
            let is_reserved = old
                .iter()
                .filter(|(key, _)| key.starts_with(&siblings) && is_free(key))
                .map(|(_, value)| Field::of(value))
                .any(|free| free.offset <= field.offset && field.end <= free.end);
            let is_behind = field.offset >= number(before, "size");
            if !(is_behind || is_reserved) {
                self.breaks.push(format!(
                    "{line} (a new field belongs behind the {} bytes that programs know, or where \
                     a field named reserved was)",
                    number(before, "size")
                ));
                return;
            }
        }
        self.additions.push(line);
    }
}

/// The key of the struct, which may be a union, of a field.
fn struct_of(field: &str) -> Option<String> {
    field.split_once('.').map(|(owner, _)| format!("struct {owner}"))
}

/// Whether a field is one that callers set to 0 and nobody reads.
fn is_free(field: &str) -> bool {
    field.rsplit('.').next().is_some_and(|name| name.starts_with("reserved"))
}

/// Whether a field is a struct inside another one, which has become longer as it may. The fields
/// behind it are judged on their own.
fn is_longer_struct(before: &Field, after: &Field, new: &Facts) -> bool {
    before.type_ == after.type_
        && after.end > before.end
        && new.get(before.type_).is_some_and(|owner| owner.ends_with("may grow"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "\
# A comment.
callback trunk_log_fn: void (void *, trunk_log_level)
constant TRUNK_OK: 0
constant TRUNK_VERSION_MINOR: 1
field trunk_buf.data: offset 0, size 8, uint8_t *
field trunk_buf.reserved: offset 8, size 8, uint64_t
field trunk_detail.text: offset 0, size 8, const char *
field trunk_grows.struct_size: offset 0, size 4, uint32_t
field trunk_grows.reserved: offset 4, size 4, uint32_t
field trunk_grows.inner: offset 8, size 16, struct trunk_inner
field trunk_inner.struct_size: offset 0, size 4, uint32_t
field trunk_inner.a: offset 4, size 4, uint32_t
field trunk_inner.b: offset 8, size 8, uint64_t
function trunk_send: trunk_result (struct trunk_engine *, const void *)
struct trunk_buf: size 16, alignment 8, fixed
struct trunk_grows: size 24, alignment 8, may grow
struct trunk_inner: size 16, alignment 8, may grow
type trunk_result: 4 bytes, signed
union trunk_detail: size 8, alignment 8
";

    fn after(changes: &[(&str, &str)]) -> Changes {
        let mut new = OLD.to_owned();
        for (from, to) in changes {
            assert!(from.is_empty() || new.contains(from), "{from}");
            if from.is_empty() {
                new.push_str(to);
            } else {
                new = new.replace(from, to);
            }
        }
        Changes::between(OLD, &new)
    }

    fn breaks(changes: &[(&str, &str)], word: &str) {
        let found = after(changes);
        assert!(!found.breaks.is_empty(), "{changes:?} is compatible");
        assert!(found.breaks.iter().any(|line| line.contains(word)), "{:?}", found.breaks);
    }

    fn adds(changes: &[(&str, &str)], lines: usize) {
        let found = after(changes);
        assert!(found.breaks.is_empty(), "{:?}", found.breaks);
        assert_eq!(found.additions.len(), lines, "{:?}", found.additions);
    }

    #[test]
    fn nothing_changed() {
        let found = after(&[]);
        assert!(found.additions.is_empty() && found.breaks.is_empty() && found.versions.is_empty());
    }

    #[test]
    fn more_names_are_additions() {
        adds(&[("", "function trunk_new: void (void)\n")], 1);
        adds(&[("", "constant TRUNK_ERR_NEW: -40\n")], 1);
        adds(&[("", "type trunk_new: 8 bytes, unsigned\n")], 1);
        adds(&[("", "callback trunk_new_fn: void (void *)\n")], 1);
        adds(
            &[(
                "",
                "struct trunk_new: size 4, alignment 4, fixed\n\
                 field trunk_new.a: offset 0, size 4, uint32_t\n",
            )],
            2,
        );
        adds(&[("", "field trunk_detail.more: offset 0, size 8, const void *\n")], 1);
        let found = after(&[("TRUNK_VERSION_MINOR: 1", "TRUNK_VERSION_MINOR: 2")]);
        assert_eq!((found.versions.len(), found.breaks.len(), found.additions.len()), (1, 0, 0));
    }

    #[test]
    fn structs_that_state_their_size_grow_at_their_end() {
        let longer = ("trunk_inner: size 16", "trunk_inner: size 24");
        adds(&[longer, ("", "field trunk_inner.c: offset 16, size 8, uint64_t\n")], 2);
        breaks(&[longer, ("", "field trunk_inner.c: offset 4, size 2, uint16_t\n")], "16 bytes");
        breaks(&[("trunk_inner: size 16, alignment 8", "trunk_inner: size 16, alignment 4")], "");
        breaks(&[("trunk_inner: size 16", "trunk_inner: size 12")], "missing");
        breaks(&[("16, alignment 8, may grow", "24, alignment 8, fixed")], "longer");
        let moved = ("trunk_inner.b: offset 8", "trunk_inner.b: offset 16");
        breaks(&[longer, moved], "trunk_inner.b");
        breaks(
            &[(
                "trunk_inner.a: offset 4, size 4, uint32_t",
                "trunk_inner.z: offset 4, size 4, uint32_t",
            )],
            "trunk_inner.a",
        );
        breaks(
            &[("size 4, uint32_t\nfield trunk_inner.b", "size 4, int32_t\nfield trunk_inner.b")],
            "built in",
        );
    }

    #[test]
    fn a_struct_at_the_end_of_another_grows_with_it() {
        let inner = ("trunk_inner: size 16", "trunk_inner: size 24");
        let field = ("size 16, struct trunk_inner", "size 24, struct trunk_inner");
        let outer = ("trunk_grows: size 24", "trunk_grows: size 32");
        adds(&[inner, field, outer, ("", "field trunk_inner.c: offset 16, size 8, uint64_t\n")], 4);
    }

    #[test]
    fn reserved_fields_make_room() {
        let taken = "trunk_grows.flags: offset 4, size 4, uint32_t";
        adds(&[("trunk_grows.reserved: offset 4, size 4, uint32_t", taken)], 1);
        let half = "trunk_buf.more: offset 8, size 4, uint32_t\n\
                    field trunk_buf.reserved: offset 12, size 4, uint32_t";
        adds(&[("trunk_buf.reserved: offset 8, size 8, uint64_t", half)], 1);
        let other = "trunk_grows.flags: offset 6, size 4, uint32_t";
        breaks(&[("trunk_grows.reserved: offset 4, size 4, uint32_t", other)], "reserved");
    }

    #[test]
    fn what_is_built_into_programs_may_not_change() {
        breaks(&[("constant TRUNK_OK: 0", "constant TRUNK_OK: 1")], "value");
        breaks(&[("constant TRUNK_OK: 0\n", "")], "gone");
        breaks(&[("trunk_buf: size 16", "trunk_buf: size 24")], "size built in");
        breaks(&[("union trunk_detail: size 8", "union trunk_detail: size 16")], "size built in");
        breaks(&[("trunk_result: 4 bytes", "trunk_result: 8 bytes")], "built in");
        breaks(&[("const void *)", "const void *, size_t)")], "the old way");
        breaks(&[("function trunk_send:", "function trunk_sent:")], "do not start");
        breaks(&[("(void *, trunk_log_level)", "(void *)")], "do not know");
        breaks(&[("field trunk_buf.data: offset 0, size 8, uint8_t *\n", "")], "programs use it");
    }
}
