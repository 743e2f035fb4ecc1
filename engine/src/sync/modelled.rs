//! The same for models: loom's, and what it does not have.
//!
//! Loom takes sequentially consistent accesses for acquire and release only. Here such an access
//! works on the newest value there is, as a read-modify-write does: that is what their one order
//! comes to. Fences, and weaker accesses, are loom's own.

use atomic::{AtomicBool, AtomicUsize, Ordering};
use std::collections::VecDeque;
use std::fmt;
use std::sync::PoisonError;
use trunkline_proto::payload::Payload;

pub(crate) use loom::sync::{Arc, Condvar, Mutex};

/// As `std::sync::atomic`.
pub(crate) mod atomic {
    pub(crate) use loom::sync::atomic::fence;
    pub(crate) use std::sync::atomic::Ordering;
    use std::sync::atomic::Ordering::{AcqRel, Acquire, Release, SeqCst};

    /// What a read-modify-write orders: its order without the one of all.
    const fn of_update(order: Ordering) -> Ordering {
        match order {
            SeqCst => AcqRel,
            order => order,
        }
    }

    macro_rules! modelled {
        ($name:ident, $value:ty, $unlikely:expr, [$($update:ident),*]) => {
            #[derive(Debug, Default)]
            pub(crate) struct $name(loom::sync::atomic::$name);

            #[allow(dead_code, reason = "each type has the same calls")]
            impl $name {
                #[track_caller]
                pub(crate) fn new(value: $value) -> Self {
                    Self(loom::sync::atomic::$name::new(value))
                }

                #[track_caller]
                pub(crate) fn load(&self, order: Ordering) -> $value {
                    if order != SeqCst {
                        return self.0.load(order);
                    }
                    let value = $unlikely;
                    self.0
                        .compare_exchange(value, value, Acquire, Acquire)
                        .unwrap_or_else(|value| value)
                }

                #[track_caller]
                pub(crate) fn store(&self, value: $value, order: Ordering) {
                    if order == SeqCst {
                        self.0.swap(value, Release);
                    } else {
                        self.0.store(value, order);
                    }
                }

                #[track_caller]
                pub(crate) fn swap(&self, value: $value, order: Ordering) -> $value {
                    self.0.swap(value, of_update(order))
                }

                #[track_caller]
                pub(crate) fn compare_exchange(
                    &self,
                    current: $value,
                    new: $value,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$value, $value> {
                    let failure = if failure == SeqCst { Acquire } else { failure };
                    self.0.compare_exchange(current, new, of_update(success), failure)
                }

                /// Without the value that is read first, which may be old: only the newest counts.
                #[track_caller]
                pub(crate) fn fetch_update(
                    &self,
                    set: Ordering,
                    fetch: Ordering,
                    mut f: impl FnMut($value) -> Option<$value>,
                ) -> Result<$value, $value> {
                    let fetch = if fetch == SeqCst { Acquire } else { fetch };
                    let mut seen = self.load(fetch);
                    while let Some(next) = f(seen) {
                        match self.compare_exchange(seen, next, set, fetch) {
                            Ok(before) => return Ok(before),
                            Err(newer) => seen = newer,
                        }
                    }
                    Err(seen)
                }

                $(
                    #[track_caller]
                    pub(crate) fn $update(&self, value: $value, order: Ordering) -> $value {
                        self.0.$update(value, of_update(order))
                    }
                )*
            }
        };
    }

    modelled!(AtomicBool, bool, false, [fetch_or, fetch_and]);
    modelled!(AtomicU8, u8, u8::MAX, [fetch_or, fetch_and]);
    modelled!(AtomicI32, i32, i32::MIN, []);
    modelled!(AtomicU32, u32, u32::MAX, [fetch_or, fetch_and, fetch_add, fetch_sub]);
    modelled!(AtomicU64, u64, u64::MAX, [fetch_or, fetch_and, fetch_add, fetch_sub]);
    modelled!(AtomicUsize, usize, usize::MAX, [fetch_add, fetch_sub]);
}

/// As `std::sync::OnceLock`.
#[derive(Debug)]
pub(crate) struct OnceLock<T> {
    value: std::sync::OnceLock<T>,
    set: AtomicBool,
    setting: Mutex<()>,
}

impl<T> OnceLock<T> {
    pub(crate) fn new() -> Self {
        Self {
            value: std::sync::OnceLock::new(),
            set: AtomicBool::new(false),
            setting: Mutex::new(()),
        }
    }

    pub(crate) fn get(&self) -> Option<&T> {
        if self.set.load(Ordering::Acquire) { self.value.get() } else { None }
    }

    pub(crate) fn set(&self, value: T) -> Result<(), T> {
        let _setting = self.setting.lock();
        let result = self.value.set(value);
        self.set.store(true, Ordering::Release);
        result
    }

    pub(crate) fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        if let Some(value) = self.get() {
            return value;
        }
        let _setting = self.setting.lock();
        let value = self.value.get_or_init(make);
        self.set.store(true, Ordering::Release);
        value
    }
}

/// What both queues of crossbeam are to whoever uses them: puts and takes have one order, in which
/// looks stand as well; a take is ordered after the puts before it, and nothing else.
///
/// The things themselves lie where loom sees nothing: a thread is only ever interrupted before an
/// operation on `count`.
struct Queue<T> {
    things: std::sync::Mutex<VecDeque<T>>,
    count: AtomicUsize,
}

impl<T> Queue<T> {
    fn new() -> Self {
        Self { things: std::sync::Mutex::default(), count: AtomicUsize::new(0) }
    }

    fn things(&self) -> std::sync::MutexGuard<'_, VecDeque<T>> {
        self.things.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is expected is what a thread finds that is not interrupted.
    fn expected(&self) -> usize {
        self.things().len()
    }

    fn push(&self, thing: T, most: usize) -> Result<(), T> {
        loop {
            let count = self.expected();
            if count < most {
                let put = self.count.compare_exchange(
                    count,
                    count + 1,
                    Ordering::Release,
                    Ordering::Relaxed,
                );
                if put.is_ok() {
                    self.things().push_back(thing);
                    return Ok(());
                }
            } else if self.len() >= most {
                return Err(thing);
            }
        }
    }

    fn pop(&self) -> Option<T> {
        loop {
            let count = self.expected();
            if count > 0 {
                let taken = self.count.compare_exchange(
                    count,
                    count - 1,
                    Ordering::Acquire,
                    Ordering::Relaxed,
                );
                if taken.is_ok() {
                    return self.things().pop_front();
                }
            } else if self.len() == 0 {
                return None;
            }
        }
    }

    /// The newest number: both queues look behind a fence before they say that they are full or
    /// empty.
    fn len(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}

/// As `crossbeam::queue::ArrayQueue`.
pub(crate) struct ArrayQueue<T> {
    queue: Queue<T>,
    capacity: usize,
}

impl<T> ArrayQueue<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { queue: Queue::new(), capacity }
    }

    pub(crate) fn push(&self, thing: T) -> Result<(), T> {
        self.queue.push(thing, self.capacity)
    }

    pub(crate) fn pop(&self) -> Option<T> {
        self.queue.pop()
    }

    pub(crate) const fn capacity(&self) -> usize {
        self.capacity
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len() >= self.capacity
    }
}

impl<T> fmt::Debug for ArrayQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ArrayQueue")
    }
}

/// As `crossbeam::queue::SegQueue`.
pub(crate) struct SegQueue<T>(Queue<T>);

impl<T> SegQueue<T> {
    pub(crate) fn new() -> Self {
        Self(Queue::new())
    }

    pub(crate) fn push(&self, thing: T) {
        let _ = self.0.push(thing, usize::MAX);
    }

    pub(crate) fn pop(&self) -> Option<T> {
        self.0.pop()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Owns a counted reference of loom's for one of the standard library's.
struct Owner<T>(Arc<T>);

impl<T: AsRef<[u8]>> AsRef<[u8]> for Owner<T> {
    fn as_ref(&self) -> &[u8] {
        (*self.0).as_ref()
    }
}

/// Bytes that are shared with the protocol.
pub(crate) fn payload<T: AsRef<[u8]> + Send + Sync + 'static>(owner: Arc<T>) -> Payload {
    Payload::new(std::sync::Arc::new(Owner(owner)))
}
