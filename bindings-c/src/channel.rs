//! Channels: opening, accepting, ending.

use crate::abi::{self, Struct};
use crate::handle::{trunk_channel, trunk_conn};
use crate::instance::{Live, live, trunk_engine};
use crate::result::{Error, Result, guard, trunk_result};
use engine::{Channel, ChannelKind, ChannelOptions};
use std::ffi::{c_char, c_void};

/// What a channel carries.
pub type trunk_kind = u32;

/// A reliable, ordered stream of bytes.
pub const TRUNK_KIND_BYTES: trunk_kind = 0;
/// Reliable, ordered messages.
pub const TRUNK_KIND_MESSAGES: trunk_kind = 1;
/// Unreliable messages.
pub const TRUNK_KIND_DATAGRAMS: trunk_kind = 2;

/// How a channel is opened or accepted. Each side chooses its own priority, weight and window.
/// trunk_channel_options_init fills in the defaults.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct trunk_channel_options {
    /// Size of this struct; set by trunk_channel_options_init.
    pub struct_size: u32,
    /// What it carries; the opener's counts. TRUNK_KIND_BYTES.
    pub kind: trunk_kind,
    /// Strict priority class of what we send, 0 first, at most 7. 4.
    pub priority: u32,
    /// Share within the class, 1 to 255. 16.
    pub weight: u32,
    /// Bytes that the peer may have on their way to us at first. 0 = the connection's
    /// channel_window.
    pub window: u64,
    /// Not 0: small writes never wait for more. 0.
    pub no_delay: u32,
    /// Opener. Not 0: data waits until the peer has answered. 0.
    pub wait_for_answer: u32,
    /// Opener, datagrams. Not 0: in both directions, a message that arrives after a newer one is
    /// dropped. 0.
    pub latest: u32,
    /// Opener, datagrams: in both directions, messages that could not be sent within this many
    /// milliseconds are dropped. 0 = never.
    pub expires_ms: u32,
    /// Opener. Not 0: joins the channel of this name that the connection has, whoever opened it, if
    /// there is one. trunk_channel_open then waits for the shard. 0.
    pub unique: u32,
    /// Must be 0.
    pub reserved: u32,
}

// SAFETY: `repr(C)`, starts with `struct_size`, integers only.
unsafe impl Struct for trunk_channel_options {
    const NAME: &'static str = "trunk_channel_options";

    fn defaults() -> Self {
        Self::from(&ChannelOptions::default())
    }
}

impl From<&ChannelOptions> for trunk_channel_options {
    fn from(options: &ChannelOptions) -> Self {
        Self {
            struct_size: size_of::<Self>() as u32,
            kind: kind_of(options.kind),
            priority: options.priority.into(),
            weight: options.weight.into(),
            window: options.window.unwrap_or(0),
            no_delay: options.no_delay.into(),
            wait_for_answer: options.wait_for_answer.into(),
            latest: options.latest.into(),
            expires_ms: options.expires_ms,
            unique: options.unique.into(),
            reserved: 0,
        }
    }
}

pub(crate) const fn kind_of(kind: ChannelKind) -> trunk_kind {
    kind as trunk_kind
}

const _: () = {
    assert!(TRUNK_KIND_BYTES == kind_of(ChannelKind::Bytes));
    assert!(TRUNK_KIND_MESSAGES == kind_of(ChannelKind::Messages));
    assert!(TRUNK_KIND_DATAGRAMS == kind_of(ChannelKind::Datagrams));
};

impl trunk_channel_options {
    fn convert(&self) -> Result<ChannelOptions> {
        let kind = match self.kind {
            TRUNK_KIND_BYTES => ChannelKind::Bytes,
            TRUNK_KIND_MESSAGES => ChannelKind::Messages,
            TRUNK_KIND_DATAGRAMS => ChannelKind::Datagrams,
            _ => return Err(Error::invalid("kind", "must lie in 0..=2")),
        };
        let small =
            |n: u32, field| u8::try_from(n).map_err(|_| Error::invalid(field, "is out of range"));
        let options = ChannelOptions {
            kind,
            priority: small(self.priority, "priority")?,
            weight: small(self.weight, "weight")?,
            window: (self.window != 0).then_some(self.window),
            unique: self.unique != 0,
            no_delay: self.no_delay != 0,
            wait_for_answer: self.wait_for_answer != 0,
            latest: self.latest != 0,
            expires_ms: self.expires_ms,
        };
        options.validate()?;
        Ok(options)
    }
}

/// The options at a pointer; the defaults for NULL.
///
/// # Safety
/// As [`abi::read`].
pub(crate) unsafe fn optional_options(
    from: *const trunk_channel_options,
) -> Result<ChannelOptions> {
    // SAFETY: handed on.
    unsafe { abi::read(from) }?.convert()
}

/// Fills struct_size bytes at options with the defaults. Call it as
/// trunk_channel_options_init(&options).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_channel_options_init_sized(
    options: *mut trunk_channel_options,
    struct_size: usize,
) -> trunk_result {
    // SAFETY: handed on to the caller's contract.
    guard(|| unsafe { abi::init(options, struct_size) })
}

/// The engine and the channel that a call is about.
///
/// # Safety
/// As [`live`].
#[inline]
pub(crate) unsafe fn named<'a>(
    engine: *mut trunk_engine,
    channel: trunk_channel,
) -> Result<(&'a Live, Channel)> {
    // SAFETY: handed on.
    let live = unsafe { live(engine) }?;
    let channel = live.names.masks.channel_of(&live.queued, channel)?;
    Ok((live, channel))
}

/// Asks the peer for a channel and stores its handle, which is valid until the channel has ended
/// (TRUNK_ITEM_CLOSED tells, and may still wait in the group) or its connection is closed. It can
/// be sent on at once. TRUNK_ITEM_READY or TRUNK_ITEM_CLOSED tells what the peer answered.
/// TRUNK_ITEM_CLOSED can come before trunk_channel_set_user: then its channel_user is NULL. name is
/// UTF-8, at most 1024 bytes, and need not be unique; options may be NULL.
///
/// Any thread, never blocks; with options.unique it waits for the shard, usually for microseconds,
/// and without threads belongs to the one that polls. Errors: TRUNK_ERR_NULL,
/// TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_NO_CONNECTION, TRUNK_ERR_LIMIT,
/// TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_FORKED; with options.unique also TRUNK_ERR_WRONG_THREAD and
/// TRUNK_ERR_IN_CALLBACK.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_channel_open(
    engine: *mut trunk_engine,
    conn: trunk_conn,
    name: *const c_char,
    options: *const trunk_channel_options,
    channel: *mut trunk_channel,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let live = unsafe { live(engine) }?;
        abi::expect(channel, "channel")?;
        // SAFETY: a string and options by contract.
        let (name, options) = unsafe { (abi::text(name, "name")?, optional_options(options)?) };
        let conn = live.names.masks.conn_of(conn);
        if options.unique {
            live.drive()?;
        }
        let opened = live.queued.open_channel(conn, name, &options)?;
        // SAFETY: checked, and writable by contract.
        unsafe { abi::put(channel, "channel", live.names.masks.channel(opened)) }
    })
}

/// Accepts a channel that came as TRUNK_ITEM_REQUEST. TRUNK_ITEM_READY follows; it can be sent on
/// at once. options may be NULL; of them kind, latest and expires_ms do not count: the opener's do.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_NO_CONNECTION, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_channel_accept(
    engine: *mut trunk_engine,
    channel: trunk_channel,
    options: *const trunk_channel_options,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let (live, channel) = unsafe { named(engine, channel) }?;
        // SAFETY: options by contract.
        let mut options = unsafe { abi::read(options) }?;
        // The opener's count; these only have to be valid.
        (options.kind, options.latest, options.expires_ms) = (TRUNK_KIND_BYTES, 0, 0);
        Ok(live.queued.accept_channel(channel, &options.convert()?)?)
    })
}

/// Declines a channel that came as TRUNK_ITEM_REQUEST. The peer learns code, which is any number,
/// and text (UTF-8, cut to 127 bytes, NULL = none). The other channels are left alone.
///
/// Any thread, never blocks. Errors: as trunk_channel_accept.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_channel_decline(
    engine: *mut trunk_engine,
    channel: trunk_channel,
    code: u32,
    text: *const c_char,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let (live, channel) = unsafe { named(engine, channel) }?;
        // SAFETY: a string by contract.
        let text = unsafe { abi::optional_text(text, "text") }?.unwrap_or_default();
        Ok(live.queued.decline_channel(channel, code, text)?)
    })
}

/// Ends our direction after everything sent so far: the peer gets TRUNK_ITEM_EOF after the last
/// byte. The other direction goes on; when both have ended and all is acknowledged,
/// TRUNK_ITEM_CLOSED is the channel's last item.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_NO_CONNECTION, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_channel_close(
    engine: *mut trunk_engine,
    channel: trunk_channel,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let (live, channel) = unsafe { named(engine, channel) }?;
        Ok(live.queued.finish(channel)?)
    })
}

/// Cancels what we send on a channel: what is not delivered yet never will be. The peer gets
/// TRUNK_ITEM_RESET with code, which is any number.
///
/// Any thread, never blocks. Errors: as trunk_channel_close.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_channel_reset(
    engine: *mut trunk_engine,
    channel: trunk_channel,
    code: u32,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let (live, channel) = unsafe { named(engine, channel) }?;
        Ok(live.queued.reset(channel, code)?)
    })
}

/// Refuses the rest of what the peer sends on a channel. The peer gets TRUNK_ITEM_STOPPED with
/// code, which is any number.
///
/// Any thread, never blocks. Errors: as trunk_channel_close.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_channel_stop(
    engine: *mut trunk_engine,
    channel: trunk_channel,
    code: u32,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let (live, channel) = unsafe { named(engine, channel) }?;
        Ok(live.queued.stop(channel, code)?)
    })
}

/// Stores the connection of a channel.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_channel_conn(
    engine: *mut trunk_engine,
    channel: trunk_channel,
    conn: *mut trunk_conn,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let (live, channel) = unsafe { named(engine, channel) }?;
        // SAFETY: writable by contract.
        unsafe { abi::put(conn, "conn", live.names.masks.conn(channel.conn())) }
    })
}

/// Keeps a pointer of the application with a channel. Each item of the channel brings it along,
/// TRUNK_ITEM_CLOSED included; the engine only hands it back. An item carries the pointer that is
/// kept when it is received (a callback: when it is called), not when it happened. Nothing is told
/// about the channels of a connection that we close: TRUNK_ITEM_DEAD of the connection stands for
/// all of them.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_channel_set_user(
    engine: *mut trunk_engine,
    channel: trunk_channel,
    user: *mut c_void,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let (live, channel) = unsafe { named(engine, channel) }?;
        if live.names.users.set_channel(&live.queued, channel, user) {
            Ok(())
        } else {
            Err(Error::handle("invalid or already closed handle"))
        }
    })
}

/// Stores the pointer kept with a channel; NULL when there is none.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_channel_user(
    engine: *mut trunk_engine,
    channel: trunk_channel,
    user: *mut *mut c_void,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let (live, channel) = unsafe { named(engine, channel) }?;
        // SAFETY: writable by contract.
        unsafe { abi::put(user, "user", live.names.users.channel(channel).1) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_survive_the_way_there_and_back() {
        let options = ChannelOptions {
            kind: ChannelKind::Datagrams,
            priority: 7,
            weight: 255,
            window: Some(4096),
            no_delay: true,
            unique: false,
            wait_for_answer: true,
            latest: true,
            expires_ms: 100,
        };
        let back = trunk_channel_options::from(&options).convert().unwrap();
        assert_eq!(format!("{options:?}"), format!("{back:?}"));
    }

    #[test]
    fn errors_name_the_field() {
        let wrong = |change: fn(&mut trunk_channel_options)| {
            let mut options = trunk_channel_options::defaults();
            change(&mut options);
            options.convert().unwrap_err().to_string()
        };
        assert!(wrong(|o| o.kind = 3).contains("kind"));
        assert!(wrong(|o| o.priority = 8).contains("priority"));
        assert!(wrong(|o| o.weight = 0).contains("weight"));
        assert!(wrong(|o| o.weight = 256).contains("weight"));
        assert!(wrong(|o| o.latest = 1).contains("latest"));
    }
}
