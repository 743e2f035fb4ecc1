//! Packets with the layout of a Trunkline short packet, sealed and opened in place.

use crate::{Cipher, OVERHEAD};
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::error::Unspecified;
use std::io;

const HEADER: usize = 13;
const TAG: usize = 16;
/// Bit 6: a short packet.
const SHORT: u8 = 0x40;

/// One direction of one connection, at either end.
pub struct Protection {
    key: Option<LessSafeKey>,
    iv: [u8; NONCE_LEN],
    id: u64,
    /// Number of the next packet: to be sealed, or expected.
    next: u64,
}

/// A packet that was opened.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened<'a> {
    pub payload: &'a [u8],
    /// Packets between the one before and this one.
    pub skipped: u64,
}

impl Protection {
    /// Both ends of a direction give the same `id`; it goes into the header.
    pub fn new(cipher: Cipher, id: u64) -> io::Result<Self> {
        let mut secret = [0x5a; 16];
        secret[..8].copy_from_slice(&id.to_le_bytes());
        let key = match cipher {
            Cipher::None => None,
            Cipher::Aes128Gcm => {
                let key = UnboundKey::new(&AES_128_GCM, &secret).map_err(refused)?;
                Some(LessSafeKey::new(key))
            }
        };
        Ok(Self { key, iv: [0x36; NONCE_LEN], id, next: 0 })
    }

    /// Writes `payload` into `packet`, which has room for it and [`OVERHEAD`], and seals it.
    pub fn seal(&mut self, payload: &[u8], packet: &mut [u8]) -> io::Result<()> {
        debug_assert_eq!(packet.len(), payload.len() + OVERHEAD);
        let number = self.next;
        self.next += 1;
        let (header, rest) = packet.split_at_mut(HEADER);
        header[0] = SHORT;
        header[1..9].copy_from_slice(&self.id.to_be_bytes());
        header[9..].copy_from_slice(&(number as u32).to_be_bytes());
        let (body, room) = rest.split_at_mut(payload.len());
        body.copy_from_slice(payload);
        if let Some(key) = &self.key {
            let tag = key
                .seal_in_place_separate_tag(self.nonce(number), Aad::from(header), body)
                .map_err(refused)?;
            room.copy_from_slice(tag.as_ref());
        }
        Ok(())
    }

    /// Opens `packet`; `None` if it is not what was sealed.
    pub fn open<'a>(&mut self, packet: &'a mut [u8]) -> Option<Opened<'a>> {
        let (header, sealed) = packet.split_at_mut_checked(HEADER)?;
        if header[0] != SHORT || id(header)? != self.id {
            return None;
        }
        let low = u32::from_be_bytes(header[9..].try_into().ok()?);
        let ahead = low.wrapping_sub(self.next as u32).cast_signed();
        let number = self.next.checked_add_signed(i64::from(ahead))?;
        let payload = match &self.key {
            Some(key) => key.open_in_place(self.nonce(number), Aad::from(header), sealed).ok()?,
            None => sealed.split_at_mut_checked(sealed.len().checked_sub(TAG)?)?.0,
        };
        let skipped = number.saturating_sub(self.next);
        self.next = self.next.max(number + 1);
        Some(Opened { payload, skipped })
    }

    /// Number of the packet that is expected, or sealed, next.
    pub const fn next(&self) -> u64 {
        self.next
    }

    fn nonce(&self, number: u64) -> Nonce {
        let mut nonce = self.iv;
        for (byte, number) in nonce[NONCE_LEN - 8..].iter_mut().zip(number.to_be_bytes()) {
            *byte ^= number;
        }
        Nonce::assume_unique_for_key(nonce)
    }
}

fn refused(_: Unspecified) -> io::Error {
    io::Error::other("AES-128-GCM refused the key or the packet")
}

/// The id in the header of `packet`.
pub fn id(packet: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(packet.get(1..9)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(cipher: Cipher) -> (Protection, Protection) {
        (Protection::new(cipher, 7).unwrap(), Protection::new(cipher, 7).unwrap())
    }

    #[test]
    fn packets_open_and_gaps_show() {
        for cipher in [Cipher::None, Cipher::Aes128Gcm] {
            let (mut sender, mut receiver) = both(cipher);
            let payload = [9; 100];
            for (number, skipped) in [(0, Some(0)), (1, None), (2, None), (3, Some(2))] {
                let mut packet = [0; 100 + OVERHEAD];
                sender.seal(&payload, &mut packet).unwrap();
                assert_eq!(packet[..13], [0x40, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, number]);
                assert_eq!(id(&packet), Some(7));
                if let Some(skipped) = skipped {
                    let opened = receiver.open(&mut packet).unwrap();
                    assert_eq!(opened, Opened { payload: &payload, skipped });
                }
            }
            assert_eq!(receiver.next(), 4);
        }
    }

    #[test]
    fn sealed_payload_is_not_readable_and_not_malleable() {
        let mut sealed = [0; 100 + OVERHEAD];
        both(Cipher::Aes128Gcm).0.seal(&[9; 100], &mut sealed).unwrap();
        assert_ne!(sealed[13..113], [9; 100]);
        for at in 0..sealed.len() {
            let mut packet = sealed;
            packet[at] ^= 1;
            let mut receiver = both(Cipher::Aes128Gcm).1;
            assert_eq!(receiver.open(&mut packet), None, "byte {at}");
            assert_eq!(receiver.next(), 0);
        }
        assert_eq!(both(Cipher::None).1.open(&mut [0x40; 20]), None);
    }
}
