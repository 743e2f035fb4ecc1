use super::*;
use std::sync::mpsc;

#[test]
fn a_lease_outlives_its_item_and_returns_from_another_thread() {
    let mut pool = RxPool::new(4, 4096, 1).unwrap();
    let index = pool.take().unwrap();
    pool.with_slices::<4, _>(&[index], 100, |s| s[0][..5].copy_from_slice(b"hello"));
    pool.hold(index);
    let lease = {
        let (bytes, retainer) = pool.open(index, 100, 5);
        assert_eq!(bytes, b"hello");
        retainer.lease(&bytes[1..4]).unwrap()
    };
    pool.release(index);
    assert_eq!(pool.free(), 3);
    let (tx, rx) = mpsc::channel();
    let second = lease.clone();
    std::thread::spawn(move || {
        assert_eq!(&*lease, b"ell");
        drop(lease);
        tx.send(()).unwrap();
    })
    .join()
    .unwrap();
    rx.recv().unwrap();
    pool.reclaim();
    assert_eq!(pool.free(), 3, "one lease is left");
    drop(second);
    pool.reclaim();
    assert_eq!(pool.free(), 4);
    assert_eq!(pool.lease_counts(), (1, 0));
}

#[test]
fn leases_leave_the_reserve_alone() {
    let mut pool = RxPool::new(4, 4096, 2).unwrap();
    let mut leases = Vec::new();
    for _ in 0..4 {
        let index = pool.take().unwrap();
        pool.hold(index);
        let (bytes, retainer) = pool.open(index, 0, 10);
        let bytes = &*bytes;
        leases.extend(retainer.lease(bytes));
        leases.extend(retainer.lease(&bytes[5..]));
        pool.release(index);
    }
    assert_eq!(leases.len(), 4, "two buffers, two leases each");
    assert_eq!(pool.free(), 2);
    assert_eq!(pool.lease_counts(), (4, 4));
    leases.clear();
    pool.reclaim();
    assert_eq!(pool.free(), 4);
}

#[test]
fn a_lease_survives_the_pool() {
    let mut pool = RxPool::new(2, 4096, 0).unwrap();
    let index = pool.take().unwrap();
    pool.with_slices::<1, _>(&[index], 0, |s| s[0][..3].copy_from_slice(b"abc"));
    pool.hold(index);
    let lease = {
        let (bytes, retainer) = pool.open(index, 0, 3);
        retainer.lease(bytes).unwrap()
    };
    drop(pool);
    assert_eq!(&*lease, b"abc");
}

#[test]
fn buffers_that_are_not_held_cannot_be_opened_or_leased() {
    let mut pool = RxPool::new(2, 4096, 0).unwrap();
    let index = pool.take().unwrap();
    assert!(pool.open(index, 0, 10).0.is_empty());
    assert!(pool.open(99, 0, 10).0.is_empty());
    pool.hold(index);
    assert!(pool.open(index, 4090, 7).0.is_empty());
    let (_, retainer) = pool.open(index, 0, 10);
    assert!(retainer.lease(b"elsewhere").is_none());
}

#[test]
fn send_buffers_are_reused_without_allocation_and_bounded() {
    let pool = SendPool::new(2, 1000).unwrap();
    let mut a = pool.take().unwrap();
    a[..5].copy_from_slice(b"first");
    let address = a.as_ptr();
    let payload = a.freeze(5);
    assert_eq!(payload.as_slice(), b"first");
    assert_eq!(payload.as_slice().as_ptr(), address, "no copy");
    let b = pool.take().unwrap();
    assert!(pool.take().is_none(), "one is written, one is on its way");
    drop(b);
    let part = payload.slice(1, 2).unwrap();
    drop(payload);
    let b = pool.take().unwrap();
    assert!(pool.take().is_none());
    drop(part);
    let again = pool.take().unwrap();
    assert_eq!(again.as_ptr(), address);
    drop((b, again));
    assert_eq!(pool.take().unwrap().freeze(5000).len(), 1000);
}

#[test]
fn send_buffers_cross_threads() {
    let pool = SendPool::new(8, 64).unwrap();
    let threads: Vec<_> = (0..4u8)
        .map(|t| {
            let pool = pool.clone();
            std::thread::spawn(move || {
                for i in 0..2000u32 {
                    let Some(mut buf) = pool.take() else { continue };
                    let value = t.wrapping_add(i as u8);
                    buf.fill(value);
                    let payload = buf.freeze(64);
                    assert!(payload.as_slice().iter().all(|b| *b == value));
                }
            })
        })
        .collect();
    for t in threads {
        t.join().unwrap();
    }
    let all: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
    assert_eq!(all.len(), 8);
}
