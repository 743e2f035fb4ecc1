//! A table of things that are named by their place and its life: a stale name never names another
//! one.

use crate::error::ApiError;
use crate::limits::MAX_MANAGED;

/// A place, and which of its lives; that is never 0.
pub(super) type Name = (u32, u32);

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Slots<T> {
    all: Vec<Slot<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { all: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slots<T> {
    /// Adds what `make` makes of its name. `what` is said when there are too many.
    pub(super) fn insert(
        &mut self,
        what: &'static str,
        make: impl FnOnce(Name) -> T,
    ) -> Result<Name, ApiError> {
        if self.all.len() - self.free.len() >= MAX_MANAGED {
            return Err(ApiError::LimitReached { what, limit: MAX_MANAGED as u64 });
        }
        let place = self.free.pop().unwrap_or_else(|| {
            self.all.push(Slot { generation: 0, value: None });
            self.all.len() as u32 - 1
        });
        let slot = &mut self.all[place as usize];
        slot.generation = slot.generation.wrapping_add(1).max(1);
        let name = (place, slot.generation);
        slot.value = Some(make(name));
        Ok(name)
    }

    pub(super) fn get(&mut self, (place, generation): Name) -> Option<&mut T> {
        let slot = self.all.get_mut(place as usize)?;
        slot.value.as_mut().filter(|_| slot.generation == generation)
    }

    pub(super) fn peek(&self, (place, generation): Name) -> Option<&T> {
        let slot = self.all.get(place as usize)?;
        slot.value.as_ref().filter(|_| slot.generation == generation)
    }

    pub(super) fn take(&mut self, (place, generation): Name) -> Option<T> {
        let slot = self.all.get_mut(place as usize)?;
        let value = slot.value.take_if(|_| slot.generation == generation)?;
        self.free.push(place);
        Some(value)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.all.iter_mut().filter_map(|slot| slot.value.as_mut())
    }
}
