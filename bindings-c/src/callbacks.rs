//! Callbacks: what happens to connections is told on the threads of their shards.

use crate::abi::{self, Struct};
use crate::channel::{kind_of, trunk_kind};
use crate::handle::{trunk_channel, trunk_group};
use crate::instance::{live, trunk_engine};
use crate::item::{TRUNK_ITEM_NONE, trunk_item};
use crate::log;
use crate::names::Names;
use crate::result::{Error, Result, TRUNK_ERR_IN_CALLBACK, guard, trunk_result};
use engine::{Callbacks, Channel, ChannelKind, Event, QueuedEngine, Received};
use std::ffi::c_void;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

/// Takes the next bytes of a channel, or one message, as kind says. data is valid during the call;
/// trunk_message_keep keeps it. channel_user is the channel's user data.
///
/// Called on the thread of the connection's shard, of a thread-less engine inside
/// trunk_engine_poll, calls that wait for the shard, trunk_shutdown and trunk_engine_destroy. The
/// shard does nothing else meanwhile: it must not block, and must not throw C++ exceptions or
/// longjmp. What it calls for connections of its own shard takes effect at once.
///
/// It may call anything but trunk_shutdown, trunk_engine_destroy, trunk_engine_poll,
/// trunk_engine_fd, trunk_engine_next_timeout_ns, trunk_engine_get_stats,
/// trunk_engine_get_shard_stats and the trunk_event_source_ functions that wait
/// (TRUNK_ERR_IN_CALLBACK). What asks another shard gives TRUNK_ERR_WOULD_BLOCK: do not try again
/// inside.
pub type trunk_data_fn = Option<
    unsafe extern "C" fn(
        user: *mut c_void,
        channel: trunk_channel,
        channel_user: *mut c_void,
        kind: trunk_kind,
        data: *const u8,
        size: usize,
    ),
>;

/// Takes every item except TRUNK_ITEM_DATA. item belongs to the engine and is valid during the
/// call.
///
/// Called as trunk_data_fn, with the same rules. TRUNK_ITEM_SHARD_FAILED, and what comes when an
/// engine is destroyed, come when the shard has ended: calls from inside give errors then.
pub type trunk_item_fn = Option<unsafe extern "C" fn(user: *mut c_void, item: *const trunk_item)>;

/// What a group calls instead of keeping items for trunk_recv_many. trunk_callbacks_init prepares
/// it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct trunk_callbacks {
    /// Size of this struct; set by trunk_callbacks_init.
    pub struct_size: u32,
    /// Must be 0.
    pub reserved: u32,
    /// Takes data. Required.
    pub on_data: trunk_data_fn,
    /// Takes everything else. Required.
    pub on_item: trunk_item_fn,
    /// First argument of both. NULL.
    pub user: *mut c_void,
}

// SAFETY: `repr(C)`, starts with `struct_size`, integers and pointers only.
unsafe impl Struct for trunk_callbacks {
    const NAME: &'static str = "trunk_callbacks";

    fn defaults() -> Self {
        let user = std::ptr::null_mut();
        Self { struct_size: 0, reserved: 0, on_data: None, on_item: None, user }
    }
}

/// The application's callbacks with their context.
struct Told {
    names: Arc<Names>,
    on_data:
        unsafe extern "C" fn(*mut c_void, trunk_channel, *mut c_void, trunk_kind, *const u8, usize),
    on_item: unsafe extern "C" fn(*mut c_void, *const trunk_item),
    user: *mut c_void,
}

// SAFETY: `user` is only handed back; the interface says that shards call on their own threads.
unsafe impl Send for Told {}
// SAFETY: as above, and several of them at once.
unsafe impl Sync for Told {}

impl Callbacks for Told {
    #[inline]
    fn on_data(&self, channel: Channel, user: u64, kind: ChannelKind, data: &[u8]) {
        if self.names.gone.load(Ordering::Relaxed) {
            return;
        }
        let handle = self.names.channel(channel);
        let channel_user = std::ptr::with_exposed_provenance_mut(user as usize);
        // SAFETY: the application's function, called as the interface says.
        unsafe {
            let kind = kind_of(kind);
            (self.on_data)(self.user, handle, channel_user, kind, data.as_ptr(), data.len());
        }
    }

    fn on_event(&self, event: Event) {
        let mut item = trunk_item::of(&self.names, Received::Event(event));
        if item.r#type != TRUNK_ITEM_NONE && !self.names.gone.load(Ordering::Acquire) {
            // SAFETY: as above.
            unsafe { (self.on_item)(self.user, &raw const item) };
        }
        item.release();
    }
}

/// The callbacks at a pointer; `None` for NULL.
///
/// # Safety
/// As [`abi::read`]; the functions may be called as the interface says.
pub(crate) unsafe fn optional(
    from: *const trunk_callbacks,
    names: &Arc<Names>,
) -> Result<Option<Arc<dyn Callbacks>>> {
    if from.is_null() {
        return Ok(None);
    }
    // SAFETY: handed on.
    let callbacks = unsafe { abi::read(from) }?;
    Ok(Some(Arc::new(Told {
        names: names.clone(),
        on_data: callbacks.on_data.ok_or(Error::null("on_data"))?,
        on_item: callbacks.on_item.ok_or(Error::null("on_item"))?,
        user: callbacks.user,
    })))
}

/// Refuses what a callback must not call.
pub(crate) fn outside_of_callbacks() -> Result {
    if log::is_inside() || QueuedEngine::is_inside_callback() {
        return Err(Error::new(
            TRUNK_ERR_IN_CALLBACK,
            "this waits for the engine, which may be waiting for the callback",
        ));
    }
    Ok(())
}

/// Fills struct_size bytes at callbacks with the defaults. Call it as
/// trunk_callbacks_init(&callbacks).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_callbacks_init_sized(
    callbacks: *mut trunk_callbacks,
    struct_size: usize,
) -> trunk_result {
    // SAFETY: handed on to the caller's contract.
    guard(|| unsafe { abi::init(callbacks, struct_size) })
}

/// Makes a group whose connections call callbacks, and stores its handle, which is valid as long as
/// the engine. It is used as a group of trunk_group_new, but trunk_recv_many refuses it. What
/// callbacks.user points to must live until trunk_engine_destroy has returned.
///
/// Any thread, never blocks. Errors: as trunk_group_new, and TRUNK_ERR_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_group_new_callbacks(
    engine: *mut trunk_engine,
    callbacks: *const trunk_callbacks,
    group: *mut trunk_group,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let live = unsafe { live(engine) }?;
        abi::expect(group, "group")?;
        // SAFETY: callbacks by contract.
        let callbacks = unsafe { optional(callbacks, &live.names) }?;
        let callbacks = callbacks.ok_or(Error::null("callbacks"))?;
        let mut groups = live.groups.write().unwrap_or_else(PoisonError::into_inner);
        groups.push(live.queued.new_callback_group(callbacks)?);
        // SAFETY: checked, and writable by contract.
        unsafe { abi::put(group, "group", live.names.masks.group(groups.len())) }
    })
}

/// Inside trunk_data_fn: keeps size bytes at data, which it was given, or a part of them, as an
/// item of TRUNK_ITEM_DATA without connection and channel: where they lie if that is worth it,
/// otherwise as a copy. They count against what the peer may send until trunk_message_release. For
/// other bytes, and elsewhere, it is a copy. The item can be sent on with trunk_send_item.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_message_keep(
    engine: *mut trunk_engine,
    data: *const c_void,
    size: usize,
    item: *mut trunk_item,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let live = unsafe { live(engine) }?;
        abi::expect(item, "item")?;
        // SAFETY: bytes by contract.
        let kept = live.queued.keep(unsafe { abi::bytes(data, size, "data") }?);
        // SAFETY: checked, and writable by contract.
        unsafe { abi::put(item, "item", trunk_item::kept(kept)) }
    })
}
