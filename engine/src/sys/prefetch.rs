//! Asking the processor for memory before it is needed.

use trunkline_proto::place::Place;

/// Bytes of a line of the processor's caches.
const LINE: usize = 64;

/// Has the lines of a place fetched. It need not be valid any more, or at all.
#[inline]
pub fn prefetch(place: Place) {
    let end = place.address.saturating_add(place.bytes);
    let mut line = place.address & !(LINE - 1);
    while line < end {
        fetch(line);
        line += LINE;
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn fetch(address: usize) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a prefetch is a hint; it reads nothing and does not fault, whatever the address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::without_provenance(address)) }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn fetch(_: usize) {}
