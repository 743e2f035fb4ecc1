//! What turns the engine's names into the application's and back: shared by an engine and its
//! callbacks, which run until the engine is gone.

use crate::handle::{Masks, trunk_channel, trunk_conn};
use crate::users::Users;
use engine::{Channel, Conn};
use std::ffi::c_void;
use std::sync::atomic::AtomicBool;

/// See the module.
pub(crate) struct Names {
    pub masks: Masks,
    pub users: Users,
    /// The engine was destroyed: the application is not called any more. Only a thread-less engine
    /// that another thread has polled still has something to tell then, when that thread ends.
    pub gone: AtomicBool,
}

impl Names {
    /// Of the next engine.
    pub(crate) fn next() -> Self {
        Self { masks: Masks::next(), users: Users::default(), gone: AtomicBool::new(false) }
    }

    /// Handle and user data of a connection.
    pub(crate) fn conn(&self, conn: Conn) -> (trunk_conn, *mut c_void) {
        (self.masks.conn(conn), self.users.conn(conn))
    }

    /// Handle of a channel.
    #[inline]
    pub(crate) const fn channel(&self, channel: Channel) -> trunk_channel {
        self.masks.channel(channel)
    }
}
