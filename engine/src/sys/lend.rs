//! A place of a thread in which a caller leaves what it has borrowed, for callees that cannot be
//! handed it: a callback of the application stands between the two.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr::null_mut;

/// A type with a lifetime, without naming the lifetime.
pub trait Borrowing {
    /// The type for a lifetime.
    type Of<'a>;
}

/// Where an `A` and a `B` are left. Belongs to one thread: a `thread_local`.
///
/// What is lent is used by one callee at a time: while it is borrowed, nobody else finds it.
pub struct Lending<A, B: Borrowing> {
    /// Both NULL, or neither. Two cells: each is written and read again as one word.
    a: Cell<*mut A>,
    b: Cell<*mut ()>,
    _what: PhantomData<fn(&mut A, B)>,
}

/// Puts back what was in the place before.
struct Restore<'a, A, B: Borrowing> {
    place: &'a Lending<A, B>,
    a: *mut A,
    b: *mut (),
}

impl<A, B: Borrowing> Drop for Restore<'_, A, B> {
    #[inline]
    fn drop(&mut self) {
        self.place.a.set(self.a);
        self.place.b.set(self.b);
    }
}

impl<A, B: Borrowing> Lending<A, B> {
    /// An empty place.
    #[must_use]
    pub const fn new() -> Self {
        Self { a: Cell::new(null_mut()), b: Cell::new(null_mut()), _what: PhantomData }
    }

    /// Whether something is lent that [`borrow`](Self::borrow) would find.
    #[inline]
    pub fn is_lent(&self) -> bool {
        !self.a.get().is_null()
    }

    /// Lends `a` and `b` to whatever `f` calls.
    #[inline]
    pub fn lend<R>(&self, a: &mut A, b: &mut B::Of<'_>, f: impl FnOnce() -> R) -> R {
        let _restore = Restore {
            place: self,
            a: self.a.replace(a),
            b: self.b.replace(std::ptr::from_mut(b).cast()),
        };
        f()
    }

    /// Calls `f` with what is lent. `None` when nothing is, or a caller has borrowed it already.
    #[inline]
    pub fn borrow<R>(&self, f: impl for<'a> FnOnce(&mut A, &mut B::Of<'a>) -> R) -> Option<R> {
        let (a, b) = (self.a.replace(null_mut()), self.b.replace(null_mut()));
        let _restore = Restore { place: self, a, b };
        if a.is_null() {
            return None;
        }
        // SAFETY: both come from the exclusive references of a `lend` that is further up this
        // thread's stack (the place is not shared with other threads, and `lend` empties it before
        // it returns), which does not use them meanwhile. The place is empty while `f` runs, so
        // that nobody else makes references of them. `f` works for every lifetime that `B::Of` may
        // have, and so cannot store anything in it that ends earlier, nor keep anything of it.
        let (a, b) = unsafe { (&mut *a, &mut *b.cast::<B::Of<'_>>()) };
        Some(f(a, b))
    }
}

impl<A, B: Borrowing> Default for Lending<A, B> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Names;
    impl Borrowing for Names {
        type Of<'a> = Vec<&'a str>;
    }

    thread_local! {
        static PLACE: Lending<u32, Names> = const { Lending::new() };
    }

    fn callee() -> Option<usize> {
        PLACE.with(|place| {
            place.borrow(|n, names| {
                *n += 1;
                names.push("static");
                assert!(!place.is_lent());
                assert!(place.borrow(|_, _| ()).is_none(), "one at a time");
                names.len()
            })
        })
    }

    #[test]
    fn a_callee_finds_what_its_caller_lends() {
        assert_eq!(callee(), None);
        let text = String::from("text");
        let (mut n, mut names) = (0, vec![&*text]);
        PLACE.with(|place| {
            place.lend(&mut n, &mut names, || {
                assert!(place.is_lent());
                assert_eq!((callee(), callee()), (Some(2), Some(3)));
                let elsewhere = std::thread::spawn(callee).join().unwrap();
                assert_eq!(elsewhere, None);
            });
        });
        assert_eq!((n, names), (2, vec!["text", "static", "static"]));
        assert_eq!(callee(), None);
    }

    #[test]
    fn nested_loans_and_panics_leave_the_place_as_it_was() {
        let (mut n, mut names) = (0, Vec::new());
        PLACE.with(|place| {
            place.lend(&mut n, &mut names, || {
                let inner = place.borrow(|n, names| {
                    *n = 7;
                    // A callee that lends on what it has borrowed.
                    place.lend(n, names, callee)
                });
                assert_eq!(inner, Some(Some(1)));
                let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    place.borrow(|_, _| panic!("on purpose"))
                }));
                assert!(panicked.is_err());
                assert_eq!(callee(), Some(2));
            });
            assert!(!place.is_lent());
        });
        assert_eq!(n, 9);
    }
}
