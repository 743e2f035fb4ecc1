//! Things that belong to no engine: handles that name them in the whole process.
//!
//! A handle is a number, spread, under a mask of its kind, like those of an engine (`handle`). It
//! says how many forks there had been when the thing was made, so that a child knows its parent's
//! handles without a lock: the parent may have been in the midst of a change when it forked, and
//! its locks stay as they were in the child for ever. A child begins with a shelf of its own.

use crate::fork;
use crate::handle::{gather, mix, spread};
use crate::result::{Error, Result, TRUNK_ERR_FORKED};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// What a handle names. Each kind has a mask of its own.
#[derive(Clone, Copy, Debug)]
#[repr(u64)]
pub(crate) enum Kind {
    CredentialIssuer = 1,
    CredentialVerifier = 2,
    EventSource = 3,
    Discovery = 4,
    Announcer = 5,
}

/// Bits of a number below its fork generation: a counter, and a lowest one that is always set.
const GENERATION_AT: u32 = 40;
const GENERATIONS: u64 = u64::MAX >> GENERATION_AT;
const COUNTS: u64 = !(u64::MAX << GENERATION_AT);

/// All things of one kind.
pub(crate) struct Registry<T> {
    mask: u64,
    /// What is said of a handle that names nothing.
    stale: &'static str,
    /// How many there have been, those of parent processes included.
    made: AtomicU64,
    /// The shelf of this process, or of the parent while this one has made nothing.
    shelf: AtomicPtr<Shelf<T>>,
}

/// What one process has.
struct Shelf<T> {
    generation: u32,
    /// A tree: leak checkers find their way through it, which they do not through a hash table.
    things: RwLock<BTreeMap<u64, Arc<T>>>,
    /// The parent's, kept known to leak checkers.
    #[expect(dead_code, reason = "only there to be seen")]
    parent: *const Shelf<T>,
}

impl<T: Send + Sync + 'static> Registry<T> {
    pub(crate) const fn new(kind: Kind, stale: &'static str) -> Self {
        Self {
            // Far from what `Masks` makes of the numbers of engines; even, as a number is odd.
            mask: mix(u64::MAX - kind as u64) & !1,
            stale,
            made: AtomicU64::new(0),
            shelf: AtomicPtr::new(std::ptr::null_mut()),
        }
    }

    /// The shelf of this process, if it has made anything.
    fn shelf(&self) -> Option<&Shelf<T>> {
        // SAFETY: NULL, or made by `own_shelf`, which never frees one.
        let shelf = unsafe { self.shelf.load(Ordering::Acquire).as_ref() }?;
        fork::is_same(shelf.generation).then_some(shelf)
    }

    /// The shelf of this process.
    fn own_shelf(&self) -> &Shelf<T> {
        let generation = fork::generation();
        loop {
            if let Some(shelf) = self.shelf() {
                return shelf;
            }
            let parent = self.shelf.load(Ordering::Acquire);
            let shelf = Shelf { generation, things: RwLock::default(), parent };
            let shelf = Box::into_raw(Box::new(shelf));
            let set =
                self.shelf.compare_exchange(parent, shelf, Ordering::AcqRel, Ordering::Acquire);
            if set.is_err() {
                // SAFETY: made above, and nobody else knows it.
                drop(unsafe { Box::from_raw(shelf) });
            }
        }
    }

    /// Keeps a thing and gives its handle.
    pub(crate) fn insert(&self, thing: T) -> u64 {
        let shelf = self.own_shelf();
        let count = self.made.fetch_add(1, Ordering::Relaxed) + 1;
        let generation = u64::from(shelf.generation) & GENERATIONS;
        let number = (generation << GENERATION_AT) | (count << 1) | 1;
        let mut things = shelf.things.write().unwrap_or_else(PoisonError::into_inner);
        things.insert(number, Arc::new(thing));
        spread(number, self.mask)
    }

    /// The number of a handle, if it can have been made by the process of this fork generation.
    fn number(&self, handle: u64, generation: u32) -> Result<u64> {
        let number = gather(handle, self.mask);
        let count = (number & COUNTS) >> 1;
        let (made_in, now) = (number >> GENERATION_AT, u64::from(generation) & GENERATIONS);
        let known = number & 1 == 1 && count != 0 && count <= self.made.load(Ordering::Relaxed);
        if !known || made_in > now {
            return Err(Error::handle(self.stale));
        }
        if made_in < now {
            return Err(Error::new(
                TRUNK_ERR_FORKED,
                "the process has forked: this belongs to the parent, make a new one",
            ));
        }
        Ok(number)
    }

    /// The shelf on which a handle's thing would be, and its number there.
    fn place(&self, handle: u64) -> Result<(&Shelf<T>, u64)> {
        let number = self.number(handle, fork::generation())?;
        Ok((self.shelf().ok_or(Error::handle(self.stale))?, number))
    }

    /// What a handle names.
    pub(crate) fn get(&self, handle: u64) -> Result<Arc<T>> {
        let (shelf, number) = self.place(handle)?;
        let things = shelf.things.read().unwrap_or_else(PoisonError::into_inner);
        things.get(&number).cloned().ok_or(Error::handle(self.stale))
    }

    /// The same, and the handle is stale from now on. What it names lives until the last call that
    /// uses it is over.
    pub(crate) fn take(&self, handle: u64) -> Result<Arc<T>> {
        let (shelf, number) = self.place(handle)?;
        let mut things = shelf.things.write().unwrap_or_else(PoisonError::into_inner);
        things.remove(&number).ok_or(Error::handle(self.stale))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::TRUNK_ERR_INVALID_HANDLE;

    static WORDS: Registry<String> = Registry::new(Kind::CredentialIssuer, "no such word");
    static NUMBERS: Registry<u64> = Registry::new(Kind::EventSource, "no such number");

    #[test]
    fn a_handle_names_one_thing_until_it_is_taken() {
        let (a, b) = (WORDS.insert("a".to_owned()), WORDS.insert("b".to_owned()));
        let number = NUMBERS.insert(7);
        assert!(a != 0 && b != 0 && a != b);
        assert_eq!((WORDS.get(a).unwrap().as_str(), *NUMBERS.get(number).unwrap()), ("a", 7));
        let kept = WORDS.take(a).unwrap();
        for stale in [a, 0, 1, b + 2, b ^ 1, number, u64::MAX] {
            let error = WORDS.get(stale).unwrap_err();
            assert_eq!(error.to_string(), "no such word", "{stale:x}");
            assert_eq!(error.code, TRUNK_ERR_INVALID_HANDLE);
            assert!(WORDS.take(stale).is_err());
        }
        assert_eq!((kept.as_str(), WORDS.get(b).unwrap().as_str()), ("a", "b"));
    }

    #[test]
    fn handles_of_other_processes_are_known_without_their_shelf() {
        static OTHERS: Registry<u64> = Registry::new(Kind::CredentialVerifier, "no such thing");
        let own = OTHERS.insert(1);
        let (now, later) = (fork::generation(), fork::generation() + 1);
        assert!(OTHERS.number(own, now).is_ok());
        assert_eq!(OTHERS.number(own, later).unwrap_err().code, TRUNK_ERR_FORKED);
        let childs = spread(gather(own, OTHERS.mask) | 1 << GENERATION_AT, OTHERS.mask);
        assert!(OTHERS.number(childs, later).is_ok());
        assert_eq!(OTHERS.number(childs, now).unwrap_err().code, TRUNK_ERR_INVALID_HANDLE);
        assert!(OTHERS.get(own).is_ok());
    }

    #[test]
    fn a_turned_bit_makes_no_other_handle() {
        static MANY: Registry<()> = Registry::new(Kind::Discovery, "no such thing");
        let handles: Vec<_> = (0..10_000).map(|_| MANY.insert(())).collect();
        for handle in handles {
            for bit in 0..64 {
                assert!(MANY.get(handle ^ 1 << bit).is_err(), "{handle:x}, bit {bit}");
            }
        }
    }
}
