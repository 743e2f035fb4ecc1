//! Big-endian integers and varints (RFC 9000 §16) on borrowed slices.
//!
//! [`Reader`] consumes a slice from the front, [`Writer`] fills one; neither allocates or panics,
//! and a failed call leaves both as they were.

/// Largest value of a varint: 2^62 − 1.
pub const VARINT_MAX: u64 = (1 << 62) - 1;

/// The input ends before the value does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("truncated")]
pub struct Truncated;

/// The buffer has no room for the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("buffer full")]
pub struct Full;

/// Bytes that [`Writer::put_varint`] needs for `value`: 1, 2, 4 or 8.
#[inline]
pub const fn varint_len(value: u64) -> usize {
    if value < 1 << 6 {
        1
    } else if value < 1 << 14 {
        2
    } else if value < 1 << 30 {
        4
    } else {
        8
    }
}

/// Reads values from the front of a slice.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader at the first byte of `bytes`.
    #[inline]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Bytes not read yet.
    #[inline]
    pub const fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Everything not read yet; nothing remains afterwards.
    #[inline]
    pub const fn rest(&mut self) -> &'a [u8] {
        let rest = self.rest;
        self.rest = &[];
        rest
    }

    /// The next `N` bytes.
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Truncated> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    /// The next `n` bytes.
    #[inline]
    pub fn bytes(&mut self, n: usize) -> Result<&'a [u8], Truncated> {
        let (head, rest) = self.rest.split_at_checked(n).ok_or(Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    /// One byte.
    #[inline]
    pub fn u8(&mut self) -> Result<u8, Truncated> {
        self.array::<1>().map(|[b]| b)
    }

    /// Two bytes.
    #[inline]
    pub fn u16(&mut self) -> Result<u16, Truncated> {
        self.array().map(u16::from_be_bytes)
    }

    /// Four bytes.
    #[inline]
    pub fn u32(&mut self) -> Result<u32, Truncated> {
        self.array().map(u32::from_be_bytes)
    }

    /// Six bytes.
    #[inline]
    pub fn u48(&mut self) -> Result<u64, Truncated> {
        let [a, b, c, d, e, f] = self.array()?;
        Ok(u64::from_be_bytes([0, 0, a, b, c, d, e, f]))
    }

    /// Eight bytes.
    #[inline]
    pub fn u64(&mut self) -> Result<u64, Truncated> {
        self.array().map(u64::from_be_bytes)
    }

    /// A varint; longer encodings than necessary are accepted (RFC 9000 §16).
    #[inline]
    pub fn varint(&mut self) -> Result<u64, Truncated> {
        let first = *self.rest.first().ok_or(Truncated)?;
        match first >> 6 {
            0 => self.u8().map(u64::from),
            1 => self.u16().map(|v| u64::from(v & 0x3FFF)),
            2 => self.u32().map(|v| u64::from(v & 0x3FFF_FFFF)),
            _ => self.u64().map(|v| v & VARINT_MAX),
        }
    }
}

/// Writes values to the front of a slice.
#[derive(Debug)]
pub struct Writer<'a> {
    buf: &'a mut [u8],
    written: usize,
}

impl<'a> Writer<'a> {
    /// A writer at the first byte of `buf`.
    #[inline]
    pub const fn new(buf: &'a mut [u8]) -> Self {
        Self { buf, written: 0 }
    }

    /// Bytes written so far.
    #[inline]
    pub const fn written(&self) -> usize {
        self.written
    }

    /// Bytes of room left.
    #[inline]
    pub const fn remaining(&self) -> usize {
        self.buf.len() - self.written
    }

    /// What has been written so far.
    #[inline]
    pub fn as_written(&self) -> &[u8] {
        self.buf.get(..self.written).unwrap_or(&[])
    }

    /// Copies `bytes`.
    #[inline]
    pub fn put_bytes(&mut self, bytes: &[u8]) -> Result<(), Full> {
        let end = self.written.checked_add(bytes.len()).ok_or(Full)?;
        self.buf.get_mut(self.written..end).ok_or(Full)?.copy_from_slice(bytes);
        self.written = end;
        Ok(())
    }

    /// Writes `n` zero bytes.
    #[inline]
    pub fn put_zeros(&mut self, n: usize) -> Result<(), Full> {
        let end = self.written.checked_add(n).ok_or(Full)?;
        self.buf.get_mut(self.written..end).ok_or(Full)?.fill(0);
        self.written = end;
        Ok(())
    }

    /// One byte.
    #[inline]
    pub fn put_u8(&mut self, value: u8) -> Result<(), Full> {
        self.put_array([value])
    }

    /// Two bytes.
    #[inline]
    pub fn put_u16(&mut self, value: u16) -> Result<(), Full> {
        self.put_array(value.to_be_bytes())
    }

    /// Four bytes.
    #[inline]
    pub fn put_u32(&mut self, value: u32) -> Result<(), Full> {
        self.put_array(value.to_be_bytes())
    }

    /// The low six bytes of `value`.
    #[inline]
    pub fn put_u48(&mut self, value: u64) -> Result<(), Full> {
        let [_, _, a, b, c, d, e, f] = value.to_be_bytes();
        self.put_array([a, b, c, d, e, f])
    }

    /// Eight bytes.
    #[inline]
    pub fn put_u64(&mut self, value: u64) -> Result<(), Full> {
        self.put_array(value.to_be_bytes())
    }

    /// A varint of the shortest form; a value above [`VARINT_MAX`] is written as [`VARINT_MAX`].
    #[inline]
    pub fn put_varint(&mut self, value: u64) -> Result<(), Full> {
        if value < 1 << 6 {
            self.put_u8(value as u8)
        } else if value < 1 << 14 {
            self.put_u16(value as u16 | 0x4000)
        } else if value < 1 << 30 {
            self.put_u32(value as u32 | 0x8000_0000)
        } else {
            self.put_u64(value.min(VARINT_MAX) | 0xC000_0000_0000_0000)
        }
    }

    /// Overwrites two bytes already written, at `at`; beyond what was written nothing happens.
    #[inline]
    pub fn patch_u16(&mut self, at: usize, value: u16) {
        let written = self.buf.get_mut(..self.written).unwrap_or(&mut []);
        if let Some(slot) = written.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
            *slot = value.to_be_bytes();
        }
    }

    /// Overwrites one byte already written, at `at`; beyond what was written nothing happens.
    #[inline]
    pub fn patch_u8(&mut self, at: usize, value: u8) {
        let written = self.buf.get_mut(..self.written).unwrap_or(&mut []);
        if let Some(slot) = written.get_mut(at) {
            *slot = value;
        }
    }

    #[inline]
    fn put_array<const N: usize>(&mut self, bytes: [u8; N]) -> Result<(), Full> {
        let slot =
            self.buf.get_mut(self.written..).and_then(<[u8]>::first_chunk_mut).ok_or(Full)?;
        *slot = bytes;
        self.written += N;
        Ok(())
    }
}
