//! How values cross the boundary: sized structs, strings, arrays, addresses, durations.
//!
//! Nothing here trusts a length or a pointer to be there; that a pointer which is not NULL points
//! to what its type says is the caller's part.

use crate::result::{Error, Result, TRUNK_ERR_BUFFER_TOO_SMALL};
use std::ffi::{CStr, c_char};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A struct of the interface that starts with `struct_size` and may grow at its end.
///
/// # Safety
/// `repr(C)`, its first field is a `u32` with the size of the struct in bytes, and all zeros are a
/// valid value.
pub(crate) unsafe trait Struct: Copy {
    /// Its name, for errors.
    const NAME: &'static str;

    /// What `…_init` fills in; `struct_size` is overwritten.
    fn defaults() -> Self;
}

/// Sizes that a caller's version of the struct can have: from the first fields on, and cut between
/// fields.
fn check_size<T>(size: usize, name: &'static str) -> Result {
    if size < 2 * size_of::<u32>() || size > 1 << 16 || !size.is_multiple_of(align_of::<T>()) {
        return Err(Error::invalid(name, "has an impossible struct_size: call its init function"));
    }
    Ok(())
}

/// Fills `size` bytes at `out` with the defaults; what this version does not know becomes zero.
///
/// # Safety
/// `out` is NULL or points to `size` writable bytes.
pub(crate) unsafe fn init<T: Struct>(out: *mut T, size: usize) -> Result {
    if out.is_null() {
        return Err(Error::null(T::NAME));
    }
    check_size::<T>(size, T::NAME)?;
    let value = T::defaults();
    // SAFETY: `size` bytes are writable by contract, and only as many are written.
    unsafe {
        out.cast::<u8>().write_bytes(0, size);
        std::ptr::copy_nonoverlapping(
            (&raw const value).cast::<u8>(),
            out.cast::<u8>(),
            size.min(size_of::<T>()),
        );
        out.cast::<u32>().write_unaligned(size as u32);
    }
    Ok(())
}

/// Reads a caller's struct, which may be older (shorter: the rest has its defaults) or newer
/// (longer: the rest must be zero). NULL gives the defaults.
///
/// # Safety
/// `from` is NULL or points to a struct of the size that its first field states.
pub(crate) unsafe fn read<T: Struct>(from: *const T) -> Result<T> {
    if from.is_null() {
        return Ok(T::defaults());
    }
    // SAFETY: the first field is there by contract.
    let size = unsafe { from.cast::<u32>().read_unaligned() } as usize;
    check_size::<T>(size, T::NAME)?;
    if size > size_of::<T>() {
        // SAFETY: the struct has `size` bytes by contract.
        let rest = unsafe {
            std::slice::from_raw_parts(from.cast::<u8>().add(size_of::<T>()), size - size_of::<T>())
        };
        if rest.iter().any(|b| *b != 0) {
            return Err(Error::invalid(
                T::NAME,
                "has fields set that this version of the library does not know",
            ));
        }
    }
    let mut value = MaybeUninit::new(T::defaults());
    // SAFETY: both sides have that many bytes; every byte pattern of the C struct that a compiler
    // can produce is a valid value of `T`, which is made of integers, pointers and arrays.
    unsafe {
        std::ptr::copy_nonoverlapping(
            from.cast::<u8>(),
            value.as_mut_ptr().cast::<u8>(),
            size.min(size_of::<T>()),
        );
        Ok(value.assume_init())
    }
}

/// Writes an answer into the caller's struct, as much of it as the caller knows.
///
/// # Safety
/// `out` is NULL or points to a struct of the size that its first field states.
pub(crate) unsafe fn write<T: Struct>(out: *mut T, value: &T) -> Result {
    if out.is_null() {
        return Err(Error::null(T::NAME));
    }
    // SAFETY: the first field is there by contract.
    let size = unsafe { out.cast::<u32>().read_unaligned() } as usize;
    check_size::<T>(size, T::NAME)?;
    // SAFETY: the caller's struct has `size` bytes by contract, and ours has its own size.
    unsafe {
        std::ptr::copy_nonoverlapping(
            std::ptr::from_ref(value).cast::<u8>(),
            out.cast::<u8>(),
            size.min(size_of::<T>()),
        );
        out.cast::<u32>().write_unaligned(size as u32);
    }
    Ok(())
}

/// Stores an answer.
///
/// # Safety
/// `out` is NULL or points to a writable `T`.
pub(crate) unsafe fn put<T>(out: *mut T, what: &'static str, value: T) -> Result {
    if out.is_null() {
        return Err(Error::null(what));
    }
    // SAFETY: writable by contract; `write` drops nothing.
    unsafe { out.write(value) };
    Ok(())
}

/// Whether an answer can be stored: asked before something is done that would be lost.
pub(crate) const fn expect<T>(out: *mut T, what: &'static str) -> Result {
    if out.is_null() { Err(Error::null(what)) } else { Ok(()) }
}

/// Bytes of the caller. A size of 0 makes NULL acceptable.
///
/// # Safety
/// `data` is NULL or points to `size` readable bytes that nobody changes during the call.
pub(crate) unsafe fn bytes<'a, T>(
    data: *const T,
    size: usize,
    what: &'static str,
) -> Result<&'a [u8]> {
    if size == 0 {
        return Ok(&[]);
    }
    if data.is_null() {
        return Err(Error::null(what));
    }
    if isize::try_from(size).is_err() {
        return Err(Error::invalid(what, "is larger than the address space"));
    }
    // SAFETY: readable by contract, not NULL, and the size is possible.
    Ok(unsafe { std::slice::from_raw_parts(data.cast::<u8>(), size) })
}

/// An array of the caller. A count of 0 makes NULL acceptable.
///
/// # Safety
/// `items` is NULL or points to `count` readable values that nobody changes during the call.
pub(crate) unsafe fn array<'a, T>(
    items: *const T,
    count: usize,
    what: &'static str,
) -> Result<&'a [T]> {
    if count == 0 {
        return Ok(&[]);
    }
    if items.is_null() {
        return Err(Error::null(what));
    }
    if !items.is_aligned() || count > isize::MAX as usize / size_of::<T>().max(1) {
        return Err(Error::invalid(what, "is no possible array"));
    }
    // SAFETY: readable by contract, not NULL, aligned, and the size is possible.
    Ok(unsafe { std::slice::from_raw_parts(items, count) })
}

/// A string of the caller; `None` for NULL.
///
/// # Safety
/// `text` is NULL or points to a string that ends with a NUL and that nobody changes during the
/// call.
pub(crate) unsafe fn optional_text<'a>(
    text: *const c_char,
    what: &'static str,
) -> Result<Option<&'a str>> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: ends with a NUL by contract.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map(Some).map_err(|_| Error::invalid(what, "is not UTF-8"))
}

/// A string of the caller.
///
/// # Safety
/// As [`optional_text`].
pub(crate) unsafe fn text<'a>(text: *const c_char, what: &'static str) -> Result<&'a str> {
    // SAFETY: handed on.
    unsafe { optional_text(text, what) }?.ok_or(Error::null(what))
}

/// An address of the caller: `192.0.2.7:7470`, `[2001:db8::7]:7470`.
///
/// # Safety
/// As [`optional_text`].
pub(crate) unsafe fn address(from: *const c_char, what: &'static str) -> Result<SocketAddr> {
    // SAFETY: handed on.
    let text = unsafe { text(from, what) }?;
    text.parse().map_err(|_| {
        Error::text(
            crate::result::TRUNK_ERR_INVALID_ARGUMENT,
            format!(
                "{what} \"{text}\" is no address with a port, such as 192.0.2.7:7470 or [::1]:7470"
            ),
        )
    })
}

/// Copies a text into the caller's buffer, with a final NUL. `needed`, which may be NULL, gets the
/// size including the NUL in any case.
///
/// # Safety
/// `out` is NULL or points to `capacity` writable bytes; `needed` is NULL or writable.
pub(crate) unsafe fn put_text(
    text: &str,
    out: *mut c_char,
    capacity: usize,
    needed: *mut usize,
) -> Result {
    let size = text.len() + 1;
    if !needed.is_null() {
        // SAFETY: writable by contract.
        unsafe { needed.write(size) };
    }
    if capacity < size {
        return Err(Error::text(
            TRUNK_ERR_BUFFER_TOO_SMALL,
            format!("the buffer has {capacity} bytes, {size} are needed"),
        ));
    }
    if out.is_null() {
        return Err(Error::null("the buffer"));
    }
    // SAFETY: `capacity` bytes are writable by contract, and `size` is not more.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr(), out.cast::<u8>(), text.len());
        out.add(text.len()).write(0);
    }
    Ok(())
}

/// Copies bytes into the caller's buffer. `needed` gets their number in any case; without it nobody
/// would know how many there are, so it is not optional as it is for texts.
///
/// # Safety
/// As [`put_text`].
pub(crate) unsafe fn put_bytes(
    bytes: &[u8],
    out: *mut u8,
    capacity: usize,
    needed: *mut usize,
) -> Result {
    let size = bytes.len();
    // SAFETY: writable by contract.
    unsafe { put(needed, "size", size) }?;
    if capacity < size {
        return Err(Error::text(
            TRUNK_ERR_BUFFER_TOO_SMALL,
            format!("the buffer has {capacity} bytes, {size} are needed"),
        ));
    }
    if out.is_null() {
        return Err(Error::null("the buffer"));
    }
    // SAFETY: `capacity` bytes are writable by contract, and `size` is not more.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), out, size) };
    Ok(())
}

/// A text in a fixed array, cut at a character if need be, with a final NUL.
pub(crate) fn fixed_text<const N: usize>(text: &str) -> [c_char; N] {
    let mut out = [0; N];
    let mut end = text.len().min(N - 1);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    for (o, b) in out.iter_mut().zip(text[..end].bytes()) {
        *o = b.cast_signed() as c_char;
    }
    out
}

/// A time in seconds of Unix time: 0 = now.
pub(crate) fn unix_s(given: u64) -> u64 {
    match given {
        0 => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
        given => given,
    }
}

/// A limit in nanoseconds: negative = none.
pub(crate) fn limit(ns: i64) -> Option<Duration> {
    u64::try_from(ns).ok().map(Duration::from_nanos)
}

/// Whether a list can be stored: asked before something is done that would be lost.
pub(crate) const fn expect_list<T>(
    out: *mut T,
    capacity: usize,
    what: &'static str,
    count: *mut usize,
) -> Result {
    if out.is_null() && capacity > 0 {
        return Err(Error::null(what));
    }
    expect(count, "count")
}

/// Stores as many of a list as there is room for, and at `count` how many there are.
///
/// # Safety
/// As [`expect_list`] has checked; `out` has `capacity` writable places, `count` is writable.
pub(crate) unsafe fn put_list<T>(
    list: impl Iterator<Item = T>,
    out: *mut T,
    capacity: usize,
    count: *mut usize,
) -> Result {
    let mut there = 0;
    for one in list {
        if there < capacity {
            // SAFETY: a place of the caller's array by contract.
            unsafe { out.add(there).write(one) };
        }
        there += 1;
    }
    // SAFETY: writable by contract.
    unsafe { put(count, "count", there) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::{TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_NULL};
    use std::ptr::{null, null_mut};

    #[repr(C)]
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Now {
        struct_size: u32,
        a: u32,
        b: u64,
        c: u64,
    }

    // SAFETY: as the trait asks.
    unsafe impl Struct for Now {
        const NAME: &'static str = "now";

        fn defaults() -> Self {
            Self { struct_size: 0, a: 1, b: 2, c: 3 }
        }
    }

    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Newer {
        now: Now,
        d: u64,
    }

    fn code(result: Result) -> i32 {
        result.map_or_else(|e| e.code, |()| 0)
    }

    #[test]
    fn an_older_caller_gets_and_gives_what_it_knows() {
        let mut now = Now { struct_size: 77, a: 77, b: 77, c: 77 };
        // SAFETY: a shorter size than the struct has.
        unsafe { init(&raw mut now, 16) }.unwrap();
        assert_eq!(now, Now { struct_size: 16, a: 1, b: 2, c: 77 }, "no byte beyond its struct");
        now.b = 9;
        // SAFETY: the first field states a size that is there.
        let read = unsafe { read(&raw const now) }.unwrap();
        assert_eq!((read.a, read.b, read.c), (1, 9, 3), "what it does not know has its default");
        let answer = Now { struct_size: 0, a: 5, b: 6, c: 7 };
        // SAFETY: as above.
        unsafe { write(&raw mut now, &answer) }.unwrap();
        assert_eq!(now, Now { struct_size: 16, a: 5, b: 6, c: 77 });
    }

    #[test]
    fn a_newer_caller_may_not_ask_for_what_is_unknown() {
        let mut newer = Newer { now: Now { struct_size: 0, a: 0, b: 0, c: 0 }, d: 1 };
        let at = &raw mut newer;
        // SAFETY: the size of the whole.
        unsafe { init(at.cast::<Now>(), size_of::<Newer>()) }.unwrap();
        assert_eq!((newer.now.c, newer.d), (3, 0));
        // SAFETY: as above.
        assert!(unsafe { read((&raw const newer).cast::<Now>()) }.is_ok());
        newer.d = 4;
        // SAFETY: as above.
        let refused = unsafe { read((&raw const newer).cast::<Now>()) };
        assert_eq!(refused.unwrap_err().code, TRUNK_ERR_INVALID_ARGUMENT);
        let answer = Now::defaults();
        // SAFETY: as above.
        unsafe { write((&raw mut newer).cast::<Now>(), &answer) }.unwrap();
        assert_eq!(newer.d, 4, "what the library does not know it leaves alone");
        assert_eq!(newer.now.struct_size as usize, size_of::<Newer>());
    }

    #[test]
    fn impossible_sizes_and_null_are_refused() {
        let mut now = Now::defaults();
        for size in [0, 4, 12, 1 << 20] {
            // SAFETY: refused before anything is written.
            assert_eq!(code(unsafe { init(&raw mut now, size) }), TRUNK_ERR_INVALID_ARGUMENT);
            now.struct_size = size as u32;
            // SAFETY: refused before more than the first field is read.
            let refused = unsafe { read(&raw const now) }.unwrap_err();
            assert_eq!(refused.code, TRUNK_ERR_INVALID_ARGUMENT);
        }
        // SAFETY: NULL is checked.
        unsafe {
            assert_eq!(code(init(null_mut::<Now>(), 24)), TRUNK_ERR_NULL);
            assert_eq!(code(write(null_mut(), &now)), TRUNK_ERR_NULL);
            assert_eq!(read(null::<Now>()).unwrap(), Now::defaults());
        }
    }

    #[test]
    fn texts_are_cut_at_characters_and_end_with_nul() {
        let fixed: [c_char; 4] = fixed_text("aäö");
        assert_eq!(fixed.map(|c| c as u8), [b'a', 0xc3, 0xa4, 0]);
        let fixed: [c_char; 3] = fixed_text("aäö");
        assert_eq!(fixed.map(|c| c as u8), [b'a', 0, 0]);
        let mut buffer = [1 as c_char; 4];
        let mut needed = 0;
        // SAFETY: a buffer with its size.
        let short = unsafe { put_text("abcd", buffer.as_mut_ptr(), 4, &raw mut needed) };
        assert_eq!((code(short), needed), (TRUNK_ERR_BUFFER_TOO_SMALL, 5));
        // SAFETY: as above.
        unsafe { put_text("abc", buffer.as_mut_ptr(), 4, null_mut()) }.unwrap();
        assert_eq!(buffer.map(|c| c as u8), *b"abc\0");
    }

    #[test]
    fn bytes_are_stored_with_their_number_or_not_at_all() {
        let mut buffer = [9; 4];
        let (out, mut needed) = (buffer.as_mut_ptr(), 0);
        // SAFETY: a buffer with its size, or NULL.
        unsafe {
            let short = put_bytes(b"abcd", out, 3, &raw mut needed);
            assert_eq!((code(short), needed, buffer), (TRUNK_ERR_BUFFER_TOO_SMALL, 4, [9; 4]));
            assert_eq!(code(put_bytes(b"abc", out, 4, null_mut())), TRUNK_ERR_NULL);
            assert_eq!(code(put_bytes(b"abc", null_mut(), 4, &raw mut needed)), TRUNK_ERR_NULL);
            put_bytes(b"abc", out, 4, &raw mut needed).unwrap();
        }
        assert_eq!((needed, buffer), (3, *b"abc\x09"));
    }

    #[test]
    fn times_are_given_or_now() {
        assert_eq!(unix_s(7), 7);
        assert!(unix_s(0) > 1_700_000_000);
    }

    #[test]
    fn strings_and_arrays_are_checked() {
        // SAFETY: NULL, or literals.
        unsafe {
            assert_eq!(text(null(), "name").unwrap_err().code, TRUNK_ERR_NULL);
            assert_eq!(optional_text(null(), "name").unwrap(), None);
            let bad = text(c"\xff".as_ptr(), "name").unwrap_err();
            assert_eq!(bad.to_string(), "name is not UTF-8");
            assert!(address(c"[::1]:5".as_ptr(), "address").is_ok());
            let bad = address(c"localhost:5".as_ptr(), "address").unwrap_err();
            assert!(bad.to_string().contains("localhost:5"));
            assert!(bytes(null::<u8>(), 0, "data").unwrap().is_empty());
            assert_eq!(bytes(null::<u8>(), 1, "data").unwrap_err().code, TRUNK_ERR_NULL);
            assert_eq!(bytes(c"x".as_ptr(), usize::MAX, "data").unwrap_err().code, -2);
            assert_eq!(array(null::<u64>(), 1, "list").unwrap_err().code, TRUNK_ERR_NULL);
        }
    }
}
