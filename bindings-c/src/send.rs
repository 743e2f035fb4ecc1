//! Sending: with a copy, without one, many at once.

use crate::abi;
use crate::channel::named;
use crate::fork;
use crate::handle::trunk_channel;
use crate::instance::{Live, live, trunk_engine};
use crate::item::trunk_item;
use crate::result::{
    Error, Result, TRUNK_ERR_FORKED, TRUNK_ERR_WOULD_BLOCK, TRUNK_OK, guard, trunk_result,
};
use engine::{ApiError, Payload, QueuedEngine, SendBuf, SentInside};
use std::ffi::c_void;

/// Sends a copy of size bytes at data: the next bytes of a stream, or one message. Sending nothing
/// on a stream does nothing; an empty message is a message. At most 16 MiB at once, 64 KiB on a
/// channel of TRUNK_KIND_DATAGRAMS.
///
/// What only the shard can know is told by TRUNK_ITEM_SEND_FAILED after TRUNK_OK: that our
/// direction is over, that the channel waits for our answer, or that the message is larger than the
/// peer takes. Inside a callback of that shard it is the result.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_WOULD_BLOCK (nothing was taken; TRUNK_ITEM_WRITABLE follows), TRUNK_ERR_DROPPED,
/// TRUNK_ERR_TOO_LARGE, TRUNK_ERR_NO_CONNECTION, TRUNK_ERR_FORKED; inside a callback of that shard
/// also TRUNK_ERR_WRONG_CHANNEL (our direction is over, or the channel waits for our answer) and
/// TRUNK_ERR_LIMIT (the bytes of one channel in its life).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_send(
    engine: *mut trunk_engine,
    channel: trunk_channel,
    data: *const c_void,
    size: usize,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let live = unsafe { live(engine) }?;
        // SAFETY: that many bytes by contract.
        let data = unsafe { abi::bytes(data, size, "data") }?;
        send(live, channel, data)
    })
}

#[inline]
fn send(live: &Live, channel: trunk_channel, data: &[u8]) -> Result {
    let mut error = None;
    let bits = live.names.masks.channel_bits(channel);
    match live.queued.send_inside(bits, data, &mut error) {
        SentInside::Taken => Ok(()),
        SentInside::Refused => Err(error.unwrap_or(ApiError::InvalidHandle).into()),
        SentInside::Elsewhere => Ok(live.queued.send_outside(bits, data)?),
    }
}

/// The same, and TRUNK_ITEM_RECEIPT with token, which may be 0 here, when the peer has acknowledged
/// all of it. For reliable channels, and not for no bytes of a stream.
///
/// Any thread, never blocks. Errors: as trunk_send; inside a callback of that shard also
/// TRUNK_ERR_INVALID_ARGUMENT (no receipt is possible; elsewhere TRUNK_ITEM_SEND_FAILED says so).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_send_receipt(
    engine: *mut trunk_engine,
    channel: trunk_channel,
    data: *const c_void,
    size: usize,
    token: u64,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let (live, channel) = unsafe { named(engine, channel) }?;
        // SAFETY: that many bytes by contract.
        let data = unsafe { abi::bytes(data, size, "data") }?;
        Ok(live.queued.send_with_receipt(channel, data, token)?)
    })
}

/// One message of trunk_send_many. Of fixed size: it does not grow.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct trunk_outgoing {
    /// Where it goes.
    pub channel: trunk_channel,
    /// The bytes.
    pub data: *const c_void,
    /// Number of bytes.
    pub size: usize,
}

/// Sends copies of count short messages with few queue operations, in order, and stores at sent,
/// which may be NULL, how many were taken. The first that was not taken gives the result; those
/// after it were not tried.
///
/// Any thread, never blocks. Errors: as trunk_send.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_send_many(
    engine: *mut trunk_engine,
    messages: *const trunk_outgoing,
    count: usize,
    sent: *mut usize,
) -> trunk_result {
    let mut taken = 0;
    let result = guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let live = unsafe { live(engine) }?;
        // SAFETY: an array by contract.
        let messages = unsafe { abi::array(messages, count, "messages") }?;
        if !send_many_inside(live, messages, &mut taken)? {
            send_many_queued(live, &messages[taken..], &mut taken)?;
        }
        Ok(())
    });
    if !sent.is_null() {
        // SAFETY: writable by contract.
        unsafe { sent.write(taken) };
    }
    result
}

/// Without a queue, inside a callback. Whether that was all; if not, the first that was not taken
/// is of another shard.
fn send_many_inside(live: &Live, messages: &[trunk_outgoing], taken: &mut usize) -> Result<bool> {
    if !QueuedEngine::is_inside_callback() {
        return Ok(false);
    }
    let (mut bad, mut refused) = (None, None);
    let named = messages.iter().map_while(|message| {
        // SAFETY: that many bytes by contract.
        let data = unsafe { abi::bytes(message.data, message.size, "data") };
        let data = data.map_err(|error| bad = Some(error)).ok()?;
        Some((live.names.masks.channel_bits(message.channel), data))
    });
    let sent = live.queued.send_many_inside(named, taken, &mut refused);
    match (refused, bad) {
        (Some(refused), _) => Err(refused.into()),
        (None, Some(bad)) => Err(bad),
        (None, None) => Ok(sent == SentInside::Taken),
    }
}

/// In few commands; adds at `taken` how many were taken.
fn send_many_queued(live: &Live, messages: &[trunk_outgoing], taken: &mut usize) -> Result {
    let mut list = Vec::with_capacity(messages.len());
    let mut bad = None;
    for message in messages {
        let named = live.names.masks.channel_of(&live.queued, message.channel);
        // SAFETY: that many bytes by contract.
        let data = unsafe { abi::bytes(message.data, message.size, "data") };
        match named.and_then(|channel| Ok((channel, data?))) {
            Ok(one) => list.push(one),
            Err(error) => {
                bad = Some(error);
                break;
            }
        }
    }
    let (queued, result) = live.queued.send_many(&list);
    *taken += queued;
    result?;
    bad.map_or(Ok(()), Err)
}

/// A buffer of the engine that the caller writes into. Of fixed size: it does not grow. A struct
/// assignment moves the buffer: use one of the two.
#[repr(C)]
#[derive(Debug)]
pub struct trunk_buf {
    /// Where to write; NULL when the struct has no buffer.
    pub data: *mut u8,
    /// Bytes that fit, at least as many as were asked for.
    pub capacity: usize,
    /// The engine's.
    pub owner: *mut c_void,
    /// 0.
    pub reserved: u64,
}

const NO_BUF: trunk_buf =
    trunk_buf { data: std::ptr::null_mut(), capacity: 0, owner: std::ptr::null_mut(), reserved: 0 };

/// What `trunk_buf::owner` points to.
struct Owner {
    fork: u32,
    content: Content,
}

enum Content {
    /// The caller writes.
    Open(SendBuf),
    /// The caller tried to send: the bytes are fixed.
    Sealed(Payload),
    /// On its way.
    Gone,
}

/// Takes one of the engine's send buffers, for at least size bytes, and stores it at buf. The
/// caller writes into it and gives it to trunk_send_buf, which sends it without a copy, or to
/// trunk_buf_free. Its bytes are arbitrary at first. It outlives its engine.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE;
/// TRUNK_ERR_WOULD_BLOCK when all buffers are in use or not acknowledged yet (try again when
/// something was received, or use trunk_send); TRUNK_ERR_TOO_LARGE when size is more than
/// send_buffer_bytes; TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_buf_alloc(
    engine: *mut trunk_engine,
    size: usize,
    buf: *mut trunk_buf,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let live = unsafe { live(engine) }?;
        // SAFETY: writable by contract.
        unsafe { abi::put(buf, "buf", NO_BUF) }?;
        if size > live.send_buffer_bytes {
            let limit = live.send_buffer_bytes;
            return Err(ApiError::MessageTooLarge { len: size, limit }.into());
        }
        let Some(mut content) = live.queued.send_buf(size) else {
            return Err(Error::new(TRUNK_ERR_WOULD_BLOCK, "all send buffers are in use"));
        };
        let (data, capacity) = (content.as_mut_ptr(), content.len());
        let owner = Owner { fork: fork::generation(), content: Content::Open(content) };
        let owner = Box::into_raw(Box::new(owner)).cast();
        // SAFETY: checked, and writable by contract.
        unsafe { abi::put(buf, "buf", trunk_buf { data, capacity, owner, reserved: 0 }) }
    })
}

/// The owner of a caller's buffer.
///
/// # Safety
/// `buf` is NULL or points to a struct that `trunk_buf_alloc` has filled and no other call uses.
unsafe fn owner_of<'a>(buf: *mut trunk_buf) -> crate::result::Result<&'a mut Owner> {
    if buf.is_null() {
        return Err(Error::null("buf"));
    }
    // SAFETY: by contract.
    let owner = unsafe { (*buf).owner }.cast::<Owner>();
    // SAFETY: NULL, or made by `trunk_buf_alloc` and not freed: freeing clears it.
    let owner = unsafe { owner.as_mut() }.ok_or(Error::handle("the buffer was sent or freed"))?;
    if !fork::is_same(owner.fork) {
        return Err(Error::new(TRUNK_ERR_FORKED, "this buffer belongs to the parent process"));
    }
    Ok(owner)
}

/// Frees a buffer's owner and clears the caller's struct.
///
/// # Safety
/// As [`owner_of`], and it has an owner.
unsafe fn let_go(buf: *mut trunk_buf) {
    // SAFETY: by contract.
    unsafe {
        drop(Box::from_raw((*buf).owner.cast::<Owner>()));
        buf.write(NO_BUF);
    }
}

/// Sends the first size bytes of a buffer of trunk_buf_alloc without a copy. When it is taken, the
/// buffer is the engine's again and the struct is empty; the memory is free for others when the
/// peer has acknowledged it. When it is not taken, the caller still has it, must not change what is
/// in it any more, and may try again with the same size. token, unless 0, asks for
/// TRUNK_ITEM_RECEIPT.
///
/// Any thread, never blocks. Errors: as trunk_send_receipt (TRUNK_ERR_INVALID_HANDLE also for a
/// buffer that was sent or freed), and TRUNK_ERR_INVALID_ARGUMENT when size is more than capacity
/// or differs from that of the first try.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_send_buf(
    engine: *mut trunk_engine,
    channel: trunk_channel,
    buf: *mut trunk_buf,
    size: usize,
    token: u64,
) -> trunk_result {
    guard(|| {
        // SAFETY: a buffer by contract.
        let owner = unsafe { owner_of(buf) }?;
        // SAFETY: from `trunk_engine_new` by contract.
        let (live, channel) = unsafe { named(engine, channel) }?;
        // SAFETY: a buffer by contract.
        if size > unsafe { (*buf).capacity } {
            return Err(Error::invalid("size", "is more than the buffer's capacity"));
        }
        let payload = match std::mem::replace(&mut owner.content, Content::Gone) {
            Content::Open(content) => content.freeze(size),
            Content::Sealed(payload) if payload.len() == size => payload,
            Content::Sealed(payload) => {
                owner.content = Content::Sealed(payload);
                return Err(Error::invalid("size", "differs from that of the first try"));
            }
            Content::Gone => return Err(Error::handle("the buffer was sent or freed")),
        };
        owner.content = Content::Sealed(payload.clone());
        live.queued.send_payload(channel, payload, (token != 0).then_some(token))?;
        // SAFETY: a buffer with an owner.
        unsafe { let_go(buf) };
        Ok(())
    })
}

/// Gives a buffer back without sending it. An empty struct is left alone.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_buf_free(buf: *mut trunk_buf) -> trunk_result {
    guard(|| {
        // SAFETY: a buffer by contract.
        if !buf.is_null() && unsafe { (*buf).owner.is_null() } {
            return Ok(());
        }
        // SAFETY: as above.
        unsafe { owner_of(buf) }?;
        // SAFETY: a buffer with an owner.
        unsafe { let_go(buf) };
        Ok(())
    })
}

/// Sends the bytes of a received item of TRUNK_ITEM_DATA on another channel, without a copy. The
/// item stays the caller's and can be sent on many channels; its memory is free when it is released
/// and all peers have acknowledged it. token, unless 0, asks for TRUNK_ITEM_RECEIPT.
///
/// Any thread, never blocks. Errors: as trunk_send_receipt, and TRUNK_ERR_INVALID_ARGUMENT when the
/// item has no data.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_send_item(
    engine: *mut trunk_engine,
    channel: trunk_channel,
    item: *const trunk_item,
    token: u64,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let (live, channel) = unsafe { named(engine, channel) }?;
        // SAFETY: an item by contract.
        let item = unsafe { item.as_ref() }.ok_or(Error::null("item"))?;
        let data = item.retained().ok_or(Error::invalid("item", "has no data"))?;
        let token = (token != 0).then_some(token);
        Ok(live.queued.send_payload(channel, data.into(), token)?)
    })
}

/// Sends now what waits on a channel to be sent together with more.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_NO_CONNECTION, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_flush(
    engine: *mut trunk_engine,
    channel: trunk_channel,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let (live, channel) = unsafe { named(engine, channel) }?;
        Ok(live.queued.flush(channel)?)
    })
}

const _: () = assert!(TRUNK_OK == 0);
