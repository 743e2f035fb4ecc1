//! Results of calls: codes, words, and the guard that every exported function runs in.

use engine::{ApiError, DriverError, EngineError};
use std::cell::RefCell;
use std::ffi::c_char;
use std::fmt::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a call answers: 0 or a negative error.
pub type trunk_result = i32;

/// Done.
pub const TRUNK_OK: trunk_result = 0;
/// A pointer that must not be NULL is NULL.
pub const TRUNK_ERR_NULL: trunk_result = -1;
/// An argument or a field is out of range; trunk_last_error names it.
pub const TRUNK_ERR_INVALID_ARGUMENT: trunk_result = -2;
/// The handle is stale, was already closed, belongs to another engine, or is of another kind.
pub const TRUNK_ERR_INVALID_HANDLE: trunk_result = -3;
/// The connection has ended or is not in a state that allows the call.
pub const TRUNK_ERR_NO_CONNECTION: trunk_result = -4;
/// A bounded queue is full: nothing was taken. TRUNK_ITEM_WRITABLE follows where the call was a
/// send; otherwise try again later. Discoveries and announcers: another thread is inside. Inside a
/// callback: another shard was asked.
pub const TRUNK_ERR_WOULD_BLOCK: trunk_result = -5;
/// The message is larger than the channel or the peer takes.
pub const TRUNK_ERR_TOO_LARGE: trunk_result = -6;
/// Not possible on this channel: its kind or its state does not know the call.
pub const TRUNK_ERR_WRONG_CHANNEL: trunk_result = -7;
/// A configured or built-in limit is reached.
pub const TRUNK_ERR_LIMIT: trunk_result = -8;
/// The unreliable message could not go now and was dropped, as its kind allows.
pub const TRUNK_ERR_DROPPED: trunk_result = -9;
/// A certificate, key or TLS setting is unusable.
pub const TRUNK_ERR_SECURITY: trunk_result = -10;
/// The operating system refused something.
pub const TRUNK_ERR_SYSTEM: trunk_result = -11;
/// The driver that was asked for does not work here.
pub const TRUNK_ERR_DRIVER: trunk_result = -12;
/// The engine was shut down, and everything it had was received.
pub const TRUNK_ERR_STOPPED: trunk_result = -13;
/// A thread-less engine is driven by another thread.
pub const TRUNK_ERR_WRONG_THREAD: trunk_result = -14;
/// The call is for thread-less engines, and this one has threads.
pub const TRUNK_ERR_NOT_THREADLESS: trunk_result = -15;
/// The process has forked since the engine, discovery or announcer was made, which belongs to the
/// parent.
pub const TRUNK_ERR_FORKED: trunk_result = -16;
/// A shard of the engine has failed: a mistake of this library, please report it.
pub const TRUNK_ERR_FAILED: trunk_result = -17;
/// A mistake of this library inside this call; please report it.
pub const TRUNK_ERR_INTERNAL: trunk_result = -18;
/// A file cannot be read or written.
pub const TRUNK_ERR_FILE: trunk_result = -19;
/// The caller's buffer is too small; the size that is needed was stored.
pub const TRUNK_ERR_BUFFER_TOO_SMALL: trunk_result = -20;
/// The call is not allowed inside a callback.
pub const TRUNK_ERR_IN_CALLBACK: trunk_result = -21;
/// Not available on this system or with this driver.
pub const TRUNK_ERR_UNSUPPORTED: trunk_result = -22;

/// A credential or an access token is not accepted; the struct that was asked for says why.
pub const TRUNK_ERR_CREDENTIAL: trunk_result = -23;

/// Every code with its words; what `trunk_result_str` answers.
pub(crate) const RESULTS: [(trunk_result, &std::ffi::CStr); 24] = [
    (TRUNK_OK, c"ok"),
    (TRUNK_ERR_NULL, c"a required pointer is NULL"),
    (TRUNK_ERR_INVALID_ARGUMENT, c"invalid argument"),
    (TRUNK_ERR_INVALID_HANDLE, c"invalid or already closed handle"),
    (TRUNK_ERR_NO_CONNECTION, c"no connection"),
    (TRUNK_ERR_WOULD_BLOCK, c"would block: a queue is full, or another thread is inside"),
    (TRUNK_ERR_TOO_LARGE, c"message too large"),
    (TRUNK_ERR_WRONG_CHANNEL, c"not possible on this channel"),
    (TRUNK_ERR_LIMIT, c"limit reached"),
    (TRUNK_ERR_DROPPED, c"unreliable message dropped"),
    (TRUNK_ERR_SECURITY, c"unusable certificate, key or TLS setting"),
    (TRUNK_ERR_SYSTEM, c"refused by the operating system"),
    (TRUNK_ERR_DRIVER, c"driver not available"),
    (TRUNK_ERR_STOPPED, c"the engine is shut down"),
    (TRUNK_ERR_WRONG_THREAD, c"the engine is driven by another thread"),
    (TRUNK_ERR_NOT_THREADLESS, c"the engine runs on its own threads"),
    (TRUNK_ERR_FORKED, c"it belongs to the parent process"),
    (TRUNK_ERR_FAILED, c"a shard of the engine has failed"),
    (TRUNK_ERR_INTERNAL, c"internal error"),
    (TRUNK_ERR_FILE, c"file not readable or writable"),
    (TRUNK_ERR_BUFFER_TOO_SMALL, c"the buffer is too small"),
    (TRUNK_ERR_IN_CALLBACK, c"not allowed inside a callback"),
    (TRUNK_ERR_UNSUPPORTED, c"not available here"),
    (TRUNK_ERR_CREDENTIAL, c"credential or token not accepted"),
];

/// A code with the detail in words.
#[derive(Debug)]
pub(crate) struct Error {
    pub code: trunk_result,
    pub detail: Detail,
}

/// Words that cost nothing until somebody fails.
#[derive(Debug)]
pub(crate) enum Detail {
    Static(&'static str),
    Field(&'static str, &'static str),
    Api(ApiError),
    Text(String),
}

pub(crate) type Result<T = ()> = std::result::Result<T, Error>;

impl Error {
    pub(crate) const fn new(code: trunk_result, detail: &'static str) -> Self {
        Self { code, detail: Detail::Static(detail) }
    }

    pub(crate) fn text(code: trunk_result, detail: impl Into<String>) -> Self {
        Self { code, detail: Detail::Text(detail.into()) }
    }

    /// An argument or field that is out of range.
    pub(crate) const fn invalid(field: &'static str, why: &'static str) -> Self {
        Self { code: TRUNK_ERR_INVALID_ARGUMENT, detail: Detail::Field(field, why) }
    }

    pub(crate) const fn null(what: &'static str) -> Self {
        Self { code: TRUNK_ERR_NULL, detail: Detail::Field(what, "is NULL") }
    }

    pub(crate) const fn handle(what: &'static str) -> Self {
        Self { code: TRUNK_ERR_INVALID_HANDLE, detail: Detail::Static(what) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.detail {
            Detail::Static(text) => f.write_str(text),
            Detail::Field(field, why) => write!(f, "{field} {why}"),
            Detail::Api(error) => error.fmt(f),
            Detail::Text(text) => f.write_str(text),
        }
    }
}

impl From<ApiError> for Error {
    fn from(error: ApiError) -> Self {
        let code = match &error {
            ApiError::InvalidHandle => TRUNK_ERR_INVALID_HANDLE,
            ApiError::NoConnection(_) => TRUNK_ERR_NO_CONNECTION,
            ApiError::WouldBlock(_) => TRUNK_ERR_WOULD_BLOCK,
            ApiError::MessageTooLarge { .. } => TRUNK_ERR_TOO_LARGE,
            ApiError::WrongChannel(_) => TRUNK_ERR_WRONG_CHANNEL,
            ApiError::InvalidArgument { .. } => TRUNK_ERR_INVALID_ARGUMENT,
            ApiError::LimitReached { .. } => TRUNK_ERR_LIMIT,
            ApiError::Dropped(_) => TRUNK_ERR_DROPPED,
            ApiError::Security(_) => TRUNK_ERR_SECURITY,
            _ => TRUNK_ERR_INTERNAL,
        };
        Self { code, detail: Detail::Api(error) }
    }
}

impl From<EngineError> for Error {
    fn from(error: EngineError) -> Self {
        let code = match error {
            EngineError::Api(error) => return error.into(),
            EngineError::Driver(DriverError::Unavailable { .. }) => TRUNK_ERR_DRIVER,
            EngineError::Driver(DriverError::System { .. }) | EngineError::System { .. } => {
                TRUNK_ERR_SYSTEM
            }
            EngineError::HandlerPanicked { .. } => TRUNK_ERR_FAILED,
            EngineError::Stopped => TRUNK_ERR_STOPPED,
            EngineError::WrongThread => TRUNK_ERR_WRONG_THREAD,
            EngineError::NotThreadless => TRUNK_ERR_NOT_THREADLESS,
            _ => TRUNK_ERR_INTERNAL,
        };
        Self::text(code, error.to_string())
    }
}

thread_local! {
    /// Detail of the last failure of this thread, with a final NUL.
    static LAST: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Remembers the words of a failure for `trunk_last_error`.
fn remember(error: &Error) {
    // Fails only while the thread is ending: nobody can ask any more.
    let _ = LAST.try_with(|last| {
        if let Ok(mut last) = last.try_borrow_mut() {
            last.clear();
            let _ = write!(last, "{error}");
            last.retain(|c| c != '\0');
            last.push('\0');
        }
    });
}

/// Runs the body of an exported function: no panic crosses the boundary, and failures leave their
/// words behind.
#[inline]
pub(crate) fn guard(body: impl FnOnce() -> Result) -> trunk_result {
    // Whatever a panic leaves half done is behind locks and handles that say so.
    let code = catch_unwind(AssertUnwindSafe(|| match body() {
        Ok(()) => TRUNK_OK,
        Err(error) => {
            remember(&error);
            error.code
        }
    }));
    match code {
        Ok(code) => code,
        Err(panic) => {
            let text = panic
                .downcast_ref::<&str>()
                .copied()
                .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
                .unwrap_or("panic without words");
            remember(&Error::text(TRUNK_ERR_INTERNAL, text));
            // Dropping it could panic once more.
            std::mem::forget(panic);
            TRUNK_ERR_INTERNAL
        }
    }
}

/// A code in words: a static string, never NULL, "unknown result" for other values.
///
/// Any thread, never blocks.
#[unsafe(no_mangle)]
pub extern "C" fn trunk_result_str(result: trunk_result) -> *const c_char {
    let found = RESULTS.iter().find(|(code, _)| *code == result);
    found.map_or(c"unknown result", |(_, text)| text).as_ptr()
}

/// The detail, in words, of the last call of this thread that failed: which argument, which file,
/// which limit. Never NULL; empty when no call of this thread has failed. Calls that succeed leave
/// it alone. Valid until the next call of this thread that fails; other threads do not change it.
///
/// Any thread, never blocks.
#[unsafe(no_mangle)]
pub extern "C" fn trunk_last_error() -> *const c_char {
    LAST.try_with(|last| match last.try_borrow() {
        Ok(text) if !text.is_empty() => text.as_ptr().cast(),
        _ => c"".as_ptr(),
    })
    .unwrap_or(c"".as_ptr())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;

    fn last() -> String {
        // SAFETY: never NULL, ends with a NUL, and is read before the next failure.
        unsafe { CStr::from_ptr(trunk_last_error()) }.to_str().unwrap().to_owned()
    }

    #[test]
    fn every_code_has_words_of_its_own() {
        let mut texts: Vec<_> = RESULTS.iter().map(|(_, text)| *text).collect();
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(texts.len(), RESULTS.len());
        for ((code, _), expected) in RESULTS.iter().zip((i32::MIN..=0).rev()) {
            assert_eq!(*code, expected, "codes are counted down");
        }
        // SAFETY: a static string.
        let unknown = unsafe { CStr::from_ptr(trunk_result_str(1)) };
        assert_eq!(unknown, c"unknown result");
    }

    #[test]
    fn failures_leave_their_words_and_successes_do_not() {
        assert_eq!(guard(|| Err(Error::invalid("weight", "must be at least 1"))), -2);
        assert_eq!(last(), "weight must be at least 1");
        assert_eq!(guard(|| Ok(())), TRUNK_OK);
        assert_eq!(last(), "weight must be at least 1");
        assert_eq!(guard(|| Err(ApiError::InvalidHandle.into())), TRUNK_ERR_INVALID_HANDLE);
        assert_eq!(last(), "invalid or already closed handle");
        guard(|| Err(Error::text(TRUNK_ERR_FILE, "a\0b")));
        assert_eq!(last(), "ab");
    }

    #[test]
    fn a_panic_becomes_a_result() {
        assert_eq!(guard(|| panic!("on {}", "purpose")), TRUNK_ERR_INTERNAL);
        assert_eq!(last(), "on purpose");
    }
}
