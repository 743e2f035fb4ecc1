//! Memory under the eyes of models (see `sync`).

/// Stands for memory that no atomic guards by itself. Whoever touches the memory says so here, which
/// comes to nothing; in a model it finds two accesses that nothing orders.
#[derive(Debug, Default)]
pub(super) struct Watched {
    #[cfg(all(test, loom))]
    cell: loom::cell::UnsafeCell<()>,
}

// SAFETY: there is nothing in the cell. Loom only counts who comes when.
#[cfg(all(test, loom))]
unsafe impl Sync for Watched {}

#[cfg_attr(not(all(test, loom)), allow(clippy::unused_self, clippy::missing_const_for_fn))]
impl Watched {
    /// The memory is being read.
    #[inline(always)]
    pub(super) fn read(&self) {
        #[cfg(all(test, loom))]
        self.cell.with(|_| ());
    }

    /// It is being written, by somebody who is alone with it.
    #[inline(always)]
    pub(super) fn write(&self) {
        #[cfg(all(test, loom))]
        self.cell.with_mut(|_| ());
    }
}
