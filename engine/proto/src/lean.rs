//! Lists that most connections need for one entry, if at all.

use std::collections::VecDeque;

/// Makes room for the first entry and no more: a list that grows by itself begins with four.
#[inline]
pub(crate) fn reserve_first<T>(list: &mut Vec<T>) {
    if list.capacity() == 0 {
        list.reserve_exact(1);
    }
}

/// The same for a queue.
#[inline]
pub(crate) fn reserve_front<T>(queue: &mut VecDeque<T>) {
    if queue.capacity() == 0 {
        queue.reserve_exact(1);
    }
}
