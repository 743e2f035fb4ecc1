//! No stats file where there is no Unix: what `watch` has, without doing anything.

use super::Shard;
use super::shared::Shared;
use crate::handler::Handler;
use crate::io::Driver;
use trunkline_proto::time::{Duration, Instant};

/// There is none.
pub(super) enum Watch {}

pub(super) const fn open(_: &Shared, _: u8, _: &str, _: Instant) -> Option<Box<Watch>> {
    None
}

#[allow(clippy::unused_self, reason = "as in `watch`")]
impl<H: Handler, D: Driver> Shard<H, D> {
    pub(super) const fn watch_woke(&self, _: Instant, _: Instant) {}
    pub(super) const fn watch_driven(&self) {}
    pub(super) const fn watch_end(&self, _: Option<&str>) {}
    pub(super) const fn watch_embedded(&self) {}
    pub(super) const fn watch_looking(&self, _: Instant) {}
    pub(super) const fn refresh_if_due(&self) {}
    pub(super) const fn refresh_and_rest(&self, _: Instant, _: Option<Duration>) {}
}
