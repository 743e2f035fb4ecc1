//! Where things lie in memory, for those who want them fetched before they are needed.

/// An address and a number of bytes. Never to be read through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The first byte; 0 = nowhere.
    pub address: usize,
    /// How many.
    pub bytes: usize,
}

impl Place {
    /// Of a value.
    pub(crate) fn of<T: ?Sized>(value: &T) -> Self {
        Self { address: std::ptr::from_ref(value).addr(), bytes: size_of_val(value) }
    }

    /// Of a value that may not be there.
    pub(crate) fn of_some<T: ?Sized>(value: Option<&T>) -> Self {
        value.map_or(Self::default(), Self::of)
    }
}
