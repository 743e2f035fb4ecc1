//! The log of one engine, given to the application's callback.
//!
//! Nothing is installed for the process: the subscriber made here is in force on the engine's
//! threads, and on the application's threads while they are inside a call of that engine.

use crate::result::{Error, Result};
use std::cell::Cell;
use std::ffi::{CString, c_char, c_void};
use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span;
use tracing::{Dispatch, Event, Level, Metadata, Subscriber};

/// How important a line of the log is; each level includes those before it.
pub type trunk_log_level = u32;

/// Nothing.
pub const TRUNK_LOG_OFF: trunk_log_level = 0;
/// Something failed.
pub const TRUNK_LOG_ERROR: trunk_log_level = 1;
/// Something is not as it should be, and the engine goes on. The default.
pub const TRUNK_LOG_WARN: trunk_log_level = 2;
/// What an operator wants to know.
pub const TRUNK_LOG_INFO: trunk_log_level = 3;
/// What a developer wants to know.
pub const TRUNK_LOG_DEBUG: trunk_log_level = 4;
/// Everything.
pub const TRUNK_LOG_TRACE: trunk_log_level = 5;

/// Takes one line of an engine's log. target names the part of the engine, text the rest; both end
/// with a NUL and are valid during the call.
///
/// Called on the engine's threads, and on threads of the application inside calls of this engine,
/// by several at once. It must not block for long and must not throw C++ exceptions or longjmp. It
/// may call anything; what waits for an engine gives TRUNK_ERR_IN_CALLBACK. What such calls log is
/// dropped, and an engine that is made there has no log of its threads.
pub type trunk_log_fn = Option<
    unsafe extern "C" fn(
        user: *mut c_void,
        level: trunk_log_level,
        target: *const c_char,
        text: *const c_char,
    ),
>;

thread_local! {
    /// This thread is inside a callback that an engine waits for.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Whether the calling thread is inside a log callback, or another one of the same rules.
pub(crate) fn is_inside() -> bool {
    INSIDE.try_with(Cell::get).unwrap_or(false)
}

/// Calls a callback of the application that has the rules of a log callback.
pub(crate) fn inside(callback: impl FnOnce()) {
    let before = INSIDE.try_with(|inside| inside.replace(true)).unwrap_or(true);
    callback();
    let _ = INSIDE.try_with(|inside| inside.set(before));
}

/// Runs `f` with the log of an engine. Inside a log callback, where lines are dropped, without: a
/// subscriber cannot be exchanged while it takes a line.
pub(crate) fn with<R>(log: Option<&Dispatch>, f: impl FnOnce() -> R) -> R {
    match log {
        Some(log) if !is_inside() => tracing::dispatcher::with_default(log, f),
        _ => f(),
    }
}

/// Refuses what waits for an engine, which may be waiting for the log or security callback.
pub(crate) fn outside_of_log() -> Result {
    if is_inside() {
        return Err(Error::new(
            crate::result::TRUNK_ERR_IN_CALLBACK,
            "this waits for the engine, which may be waiting for the callback",
        ));
    }
    Ok(())
}

/// The application's callback with its context.
struct Sink {
    call: unsafe extern "C" fn(*mut c_void, trunk_log_level, *const c_char, *const c_char),
    user: *mut c_void,
    level: LevelFilter,
    spans: AtomicU64,
}

// SAFETY: `user` is only handed back; the interface says that the callback runs on any thread.
unsafe impl Send for Sink {}
// SAFETY: as above, and by several threads at once.
unsafe impl Sync for Sink {}

/// The subscriber of an engine, or `None` when the application wants no log.
pub(crate) fn dispatch(
    call: trunk_log_fn,
    user: *mut c_void,
    level: trunk_log_level,
) -> Result<Option<Dispatch>> {
    let level = match level {
        TRUNK_LOG_OFF => return Ok(None),
        TRUNK_LOG_ERROR => LevelFilter::ERROR,
        TRUNK_LOG_WARN => LevelFilter::WARN,
        TRUNK_LOG_INFO => LevelFilter::INFO,
        TRUNK_LOG_DEBUG => LevelFilter::DEBUG,
        TRUNK_LOG_TRACE => LevelFilter::TRACE,
        _ => return Err(Error::invalid("log_level", "must lie in 0..=5")),
    };
    Ok(call.map(|call| Dispatch::new(Sink { call, user, level, spans: AtomicU64::new(1) })))
}

impl Subscriber for Sink {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level)
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(self.spans.fetch_add(1, Ordering::Relaxed).max(1))
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let target = text(event.metadata().target().to_owned());
        let text = text(line.finish());
        let level = match *event.metadata().level() {
            Level::ERROR => TRUNK_LOG_ERROR,
            Level::WARN => TRUNK_LOG_WARN,
            Level::INFO => TRUNK_LOG_INFO,
            Level::DEBUG => TRUNK_LOG_DEBUG,
            Level::TRACE => TRUNK_LOG_TRACE,
        };
        if !is_inside() {
            // SAFETY: the application's function, called as the interface says, with strings that
            // outlive the call.
            inside(|| unsafe { (self.call)(self.user, level, target.as_ptr(), text.as_ptr()) });
        }
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

fn text(mut text: String) -> CString {
    text.retain(|c| c != '\0');
    CString::new(text).unwrap_or_default()
}

/// A line being put together: the message first, then the fields.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Line {
    fn finish(mut self) -> String {
        self.message.push_str(&self.fields);
        self.message
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string cannot fail.
        let _ = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            write!(self.fields, " {}={value:?}", field.name())
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;
    use std::sync::Mutex;

    type Seen = Mutex<Vec<(u32, String)>>;

    unsafe extern "C" fn collect(
        user: *mut c_void,
        level: u32,
        target: *const c_char,
        text: *const c_char,
    ) {
        assert!(is_inside());
        // SAFETY: the test's own list, and strings with a NUL.
        let (seen, target, text) =
            unsafe { (&*user.cast::<Seen>(), CStr::from_ptr(target), CStr::from_ptr(text)) };
        assert!(target.to_str().unwrap().contains("log::tests"));
        tracing::error!("from inside: dropped");
        let log = dispatch(Some(collect), user, TRUNK_LOG_TRACE).unwrap();
        with(log.as_ref(), || tracing::error!("from a call inside: dropped"));
        seen.lock().unwrap().push((level, text.to_str().unwrap().to_owned()));
    }

    #[test]
    fn lines_of_the_wanted_levels_reach_the_callback() {
        let seen = Seen::default();
        let user = (&raw const seen).cast_mut().cast();
        let log = dispatch(Some(collect), user, TRUNK_LOG_INFO).unwrap().unwrap();
        with(Some(&log), || {
            let span = tracing::info_span!("outer");
            let _inside = span.enter();
            tracing::info!(port = 7, name = "a\0b", "listening {}", "here");
            tracing::debug!("too much detail");
            tracing::error!("bad");
        });
        tracing::error!("not ours");
        let seen = seen.into_inner().unwrap();
        assert_eq!(seen, [(3, "listening here port=7 name=ab".to_owned()), (1, "bad".to_owned())]);
        assert!(!is_inside());
    }

    #[test]
    fn off_and_no_callback_are_no_log() {
        let none = std::ptr::null_mut();
        assert!(dispatch(Some(collect), none, TRUNK_LOG_OFF).unwrap().is_none());
        assert!(dispatch(None, none, TRUNK_LOG_TRACE).unwrap().is_none());
        assert!(dispatch(None, none, 6).is_err());
    }
}
