//! Memory that is used again: not before the last who holds it has let it go, and then once.

use super::*;
use crate::buf::{RxPool, SendPool};
use crate::queue::memory::Copies;
use crate::retained::{Block, BlockPool, Credit, Creditor, Pool, Retained};
use loom::thread;
use std::sync::Mutex as Untracked;

/// Notes what comes back. (Not loom's: it is only compared at the end.)
#[derive(Default)]
struct Sum(Untracked<Vec<(Channel, u64)>>);

impl Creditor for Sum {
    fn release(&self, channel: Channel, bytes: u64) {
        self.0.lock().unwrap().push((channel, bytes));
    }
}

fn channel(slot: u32) -> Channel {
    Channel::new(Conn::from_bits(1), ChannelKey { slot, life: 1 })
}

/// Shares of one credit are dropped by two threads while the shard makes the next one.
#[test]
fn loom_credit_returns_once_and_is_used_again_then() {
    explore(3, || {
        let sum = Arc::new(Sum::default());
        let mut pool: Pool<Credit> = Pool::new(1);
        let mut get = |slot, bytes| {
            let make = || Credit::new(sum.clone(), channel(slot));
            let credit = pool.get(make, |credit| credit.set(channel(slot), bytes));
            Retained::copy(b"x").with_credit(credit)
        };
        let first = get(1, 10);
        let share = first.clone();
        let holders = [first, share].map(|held| thread::spawn(move || drop(held)));
        let second = get(2, 20);
        let other = second.clone();
        drop(second);
        for holder in holders {
            holder.join().unwrap();
        }
        assert_eq!(*sum.0.lock().unwrap(), [(channel(1), 10)]);
        drop(other);
        assert_eq!(*sum.0.lock().unwrap(), [(channel(1), 10), (channel(2), 20)]);
    });
}

/// Parts of a block are read by two threads while the shard wants a block for the next batch.
#[test]
fn loom_a_block_is_filled_again_when_nobody_reads_it() {
    explore(3, || {
        let mut pool = BlockPool::new(1);
        let mut bytes = b"first".to_vec();
        let address = bytes.as_ptr() as usize;
        let block = pool.swap(&mut bytes);
        let parts = [Retained::part(block.clone(), 0, 2), Retained::part(block, 2, 3)];
        let readers = parts.map(|part| {
            thread::spawn(move || {
                let before = part.to_vec();
                thread::yield_now();
                assert!(b"first".windows(before.len()).any(|w| w == before) && *part == before);
            })
        });
        let mut bytes = b"other".to_vec();
        let other = pool.swap(&mut bytes);
        assert_eq!(&**other, b"other");
        let reused = bytes.capacity() > 0;
        assert!(!reused || bytes.as_ptr() as usize == address);
        for reader in readers {
            reader.join().unwrap();
        }
        drop(other);
        // Now nobody holds anything: memory comes back.
        let mut bytes = b"third".to_vec();
        let third: crate::sync::Arc<Block> = pool.swap(&mut bytes);
        assert!(bytes.capacity() > 0 && &**third == b"third");
    });
}

/// Two threads copy messages, while a third lets one go; one is remembered.
#[test]
fn loom_copies_are_used_again_when_nobody_reads_them() {
    explore(2, || {
        let copies = Arc::new(Copies::new(10));
        let connection = {
            let first = copies.copy(b"one");
            thread::spawn(move || {
                assert_eq!(first.as_slice(), b"one");
                let part = first.slice(1, 2).unwrap();
                drop(first);
                assert_eq!(part.as_slice(), b"ne");
            })
        };
        let sender = {
            let copies = copies.clone();
            thread::spawn(move || copies.copy(b"two"))
        };
        let three = copies.copy(b"three");
        let two = sender.join().unwrap();
        assert_eq!((two.as_slice(), three.as_slice()), (&b"two"[..], &b"three"[..]));
        connection.join().unwrap();
        drop((two, three));
        let (counted, held) = copies.forget();
        assert_eq!(counted, held);
    });
}

/// One buffer: whoever takes it is alone with it until it has left.
#[test]
fn loom_a_send_buffer_is_taken_when_nobody_holds_it() {
    explore(3, || {
        let pool = SendPool::new(1, 64).unwrap();
        let user = |pool: SendPool, mark: u8| {
            move || {
                let Some(mut buf) = pool.take() else { return };
                buf.fill(mark);
                let payload = buf.freeze(10);
                thread::yield_now();
                assert_eq!(payload.as_slice(), [mark; 10]);
            }
        };
        let other = thread::spawn(user(pool.clone(), 1));
        user(pool.clone(), 2)();
        other.join().unwrap();
        assert!(pool.take().is_some(), "it is there again");
    });
}

/// Leases of one received buffer are dropped elsewhere while the driver lets its item go; then the
/// buffer is received into again.
#[test]
fn loom_a_leased_buffer_is_filled_again_after_its_last_reader() {
    explore(3, || {
        let mut pool = RxPool::new(1, 64, 0).unwrap();
        let index = pool.take().unwrap();
        pool.with_slices::<1, _>(&[index], 0, |slices| slices[0][..4].copy_from_slice(b"abcd"));
        pool.hold(index);
        let leases = {
            let (bytes, retainer) = pool.open(index, 0, 4);
            let bytes = &*bytes;
            [&bytes[..2], &bytes[2..]].map(|part| retainer.lease(part).unwrap())
        };
        let readers = leases.map(|lease| {
            thread::spawn(move || {
                let again = lease.clone();
                drop(lease);
                assert!(*again == *b"ab" || *again == *b"cd");
            })
        });
        pool.release(index);
        pool.reclaim();
        let fill = |pool: &mut RxPool| {
            let index = pool.take()?;
            pool.with_slices::<1, _>(&[index], 0, |slices| slices[0][..4].fill(b'x'));
            Some(index)
        };
        let filled = fill(&mut pool);
        for reader in readers {
            reader.join().unwrap();
        }
        pool.reclaim();
        assert!(filled.is_some() != fill(&mut pool).is_some(), "once, and not twice");
    });
}
