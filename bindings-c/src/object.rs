//! A thing that one thread at a time is inside of, that others may wake or close meanwhile, and that
//! never makes a thread wait for another.

use crate::instance::lock;
use crate::result::{Error, Result, TRUNK_ERR_SYSTEM, TRUNK_ERR_WOULD_BLOCK};
use engine::discovery::Waker;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;

/// See the module.
#[derive(Debug)]
pub(crate) struct Object<T> {
    place: Mutex<Place<T>>,
    waker: Waker,
}

#[derive(Debug)]
enum Place<T> {
    Here(T),
    /// A thread is inside a call that may wait.
    Lent,
    /// Closed, or given up because a call panicked.
    Gone,
}

const fn busy() -> Error {
    Error::new(TRUNK_ERR_WOULD_BLOCK, "another thread is inside a call that waits")
}

const fn gone() -> Error {
    Error::handle("closed by another thread")
}

impl<T> Object<T> {
    /// `waker` ends a wait inside of [`lend`](Self::lend).
    pub(crate) const fn new(value: T, waker: Waker) -> Self {
        Self { place: Mutex::new(Place::Here(value)), waker }
    }

    /// For calls that do not wait: the lock is held for so long.
    pub(crate) fn with<R>(&self, call: impl FnOnce(&mut T) -> Result<R>) -> Result<R> {
        match &mut *lock(&self.place) {
            Place::Here(value) => call(value),
            Place::Lent => Err(busy()),
            Place::Gone => Err(gone()),
        }
    }

    /// For calls that wait: no lock is held meanwhile. When it is closed meanwhile, it ends after
    /// the call, which fails.
    pub(crate) fn lend<R>(&self, call: impl FnOnce(&mut T) -> Result<R>) -> Result<R> {
        let mut value = {
            let mut place = lock(&self.place);
            match std::mem::replace(&mut *place, Place::Lent) {
                Place::Here(value) => value,
                Place::Lent => return Err(busy()),
                Place::Gone => {
                    *place = Place::Gone;
                    return Err(gone());
                }
            }
        };
        match catch_unwind(AssertUnwindSafe(|| call(&mut value))) {
            Ok(result) => {
                let mut place = lock(&self.place);
                if matches!(*place, Place::Gone) {
                    // The value ends when the lock is free again: it was made before.
                    return Err(gone());
                }
                *place = Place::Here(value);
                result
            }
            Err(panic) => {
                *lock(&self.place) = Place::Gone;
                // Dropping what a panic left could panic once more.
                std::mem::forget(value);
                resume_unwind(panic)
            }
        }
    }

    /// Ends it: at once, or with the call that another thread is inside of.
    pub(crate) fn close(&self) -> Result {
        let place = std::mem::replace(&mut *lock(&self.place), Place::Gone);
        match place {
            Place::Here(value) => drop(value),
            Place::Lent => self.wake()?,
            Place::Gone => {}
        }
        Ok(())
    }

    /// Ends the wait of a thread that is inside, or of the next one.
    pub(crate) fn wake(&self) -> Result {
        self.waker.wake().map_err(|e| Error::text(TRUNK_ERR_SYSTEM, format!("wake: {e}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::{TRUNK_ERR_INTERNAL, TRUNK_ERR_INVALID_HANDLE, guard};
    use engine::discovery::{Discovery, DiscoveryConfig};
    use std::sync::Arc;

    fn object(value: Arc<()>) -> Object<Arc<()>> {
        let waker = Discovery::start(DiscoveryConfig::default()).unwrap().waker();
        Object::new(value, waker)
    }

    fn code<R>(result: Result<R>) -> i32 {
        result.map_or_else(|e| e.code, |_| 0)
    }

    #[test]
    fn others_are_refused_while_one_is_inside() {
        let object = object(Arc::default());
        object
            .lend(|_| {
                assert_eq!(code(object.with(|_| Ok(()))), TRUNK_ERR_WOULD_BLOCK);
                assert_eq!(code(object.lend(|_| Ok(()))), TRUNK_ERR_WOULD_BLOCK);
                Ok(())
            })
            .unwrap();
        assert_eq!(code(object.with(|_| Ok(()))), 0);
    }

    #[test]
    fn what_is_closed_meanwhile_ends_with_the_call() {
        let value = Arc::default();
        let object = object(Arc::clone(&value));
        let result = object.lend(|_| {
            object.close().unwrap();
            assert_eq!(Arc::strong_count(&value), 2);
            Ok(())
        });
        assert_eq!(code(result), TRUNK_ERR_INVALID_HANDLE);
        assert_eq!(Arc::strong_count(&value), 1);
        assert_eq!(code(object.with(|_| Ok(()))), TRUNK_ERR_INVALID_HANDLE);
        assert_eq!(code(object.lend(|_| Ok(()))), TRUNK_ERR_INVALID_HANDLE);
        object.close().unwrap();
    }

    #[test]
    fn a_panic_inside_leaves_nothing_to_call() {
        let object = object(Arc::default());
        let result = guard(|| object.lend::<()>(|_| panic!("on purpose")));
        assert_eq!(result, TRUNK_ERR_INTERNAL);
        assert_eq!(code(object.with(|_| Ok(()))), TRUNK_ERR_INVALID_HANDLE);
    }
}
