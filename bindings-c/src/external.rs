//! Sending memory of the application without a copy.

use crate::abi;
use crate::channel::named;
use crate::fork;
use crate::handle::trunk_channel;
use crate::instance::trunk_engine;
use crate::result::{Error, guard, trunk_result};
use engine::{Payload, QueuedEngine};
use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Gives memory back that trunk_send_external was given: nobody reads it any more.
///
/// Called once, on any thread: usually the shard's, when the peer has acknowledged the bytes or the
/// channel has ended, also before trunk_send_external has returned; at the latest inside
/// trunk_engine_destroy, and of a thread-less engine that another thread destroys than the one that
/// polled, when that thread ends. It must not block and must not throw C++ exceptions or longjmp.
/// It may call what never blocks; calls that would wait for a shard give TRUNK_ERR_WOULD_BLOCK or
/// TRUNK_ERR_IN_CALLBACK.
pub type trunk_release_fn =
    Option<unsafe extern "C" fn(user: *mut c_void, data: *const c_void, size: usize)>;

/// Bytes of the application until the last one who reads them has let go.
struct External {
    data: *const c_void,
    size: usize,
    release: unsafe extern "C" fn(*mut c_void, *const c_void, usize),
    user: *mut c_void,
    /// Whether they were taken: those that were not stay the caller's.
    taken: AtomicBool,
    fork: u32,
}

// SAFETY: the bytes are only read until they are released; `user` and `release` are the caller's, who
// says by contract that they may be used on any thread.
unsafe impl Send for External {}
// SAFETY: as above.
unsafe impl Sync for External {}

impl AsRef<[u8]> for External {
    fn as_ref(&self) -> &[u8] {
        if self.size == 0 {
            return &[];
        }
        // SAFETY: checked when it was made; bytes that do not change until they are released, by
        // contract.
        unsafe { std::slice::from_raw_parts(self.data.cast(), self.size) }
    }
}

impl Drop for External {
    fn drop(&mut self) {
        if self.taken.load(Ordering::Acquire) && fork::is_same(self.fork) {
            // SAFETY: the caller's function with the caller's arguments, once, after the last read.
            QueuedEngine::as_callback(|| unsafe {
                (self.release)(self.user, self.data, self.size);
            });
        }
    }
}

/// Sends size bytes at data without a copy, at once the next bytes of a stream or one message. When
/// they are taken, they must not change until release, which may not be NULL, is called with user,
/// data and size. When they are not, release is not called. For long messages: a short one is sent
/// sooner by trunk_send. token, unless 0, asks for TRUNK_ITEM_RECEIPT.
///
/// Any thread, never blocks. Errors: as trunk_send_receipt.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_send_external(
    engine: *mut trunk_engine,
    channel: trunk_channel,
    data: *const c_void,
    size: usize,
    release: trunk_release_fn,
    user: *mut c_void,
    token: u64,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let (live, channel) = unsafe { named(engine, channel) }?;
        // SAFETY: that many bytes by contract.
        unsafe { abi::bytes(data, size, "data") }?;
        let release = release.ok_or(Error::null("release"))?;
        let external = Arc::new(External {
            data,
            size,
            release,
            user,
            taken: AtomicBool::new(true),
            fork: fork::generation(),
        });
        let payload = Payload::new(external.clone());
        let sent = live.queued.send_payload(channel, payload, (token != 0).then_some(token));
        if sent.is_err() {
            // Nobody else has it any more.
            external.taken.store(false, Ordering::Release);
        }
        Ok(sent?)
    })
}
