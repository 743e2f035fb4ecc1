//! A shard without a thread: the application drives it.

use super::Shard;
use super::control::{Control, ShardEnd, listener_config};
use super::drive::AnyDriver;
use super::mailbox::{Mailbox, Port};
use super::shared::Shared;
use super::sockets::{Family, Purpose};
use crate::config::{EngineConfig, ListenConfig};
use crate::engine::{Listener, ShutdownReport};
use crate::error::{EngineError, Full};
use crate::handler::{Context, Handler};
use crate::io::{Driver, DriverChoice};
use crate::stats::ShardStats;
use crossbeam::channel::{Receiver, bounded};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// One shard that the application drives with [`poll`](Self::poll), on one thread. No thread is
/// started.
///
/// To sleep in an event loop of its own, the application waits until [`fd`](Self::fd) is readable
/// or [`next_timeout`](Self::next_timeout) has passed, and polls then. Other threads reach the
/// handler through a [`LocalHandle`].
pub struct LocalShard<H: Handler, D: Driver = AnyDriver> {
    shard: Shard<H, D>,
    mailbox: Arc<Mailbox<H::Command>>,
    port: Arc<Port>,
    told: bool,
    ended: Option<Receiver<ShardEnd>>,
}

/// Reaches a [`LocalShard`] from any thread.
pub struct LocalHandle<H: Handler> {
    mailbox: Arc<Mailbox<H::Command>>,
    port: Arc<Port>,
}

impl<H: Handler> Clone for LocalHandle<H> {
    fn clone(&self) -> Self {
        Self { mailbox: self.mailbox.clone(), port: self.port.clone() }
    }
}

impl<H: Handler> std::fmt::Debug for LocalHandle<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalHandle").finish_non_exhaustive()
    }
}

impl<H: Handler> LocalHandle<H> {
    /// Posts a command for the handler's [`on_command`](Handler::on_command).
    ///
    /// # Errors
    /// [`Full`] when the mailbox is full or the shard is gone; the command comes back.
    pub fn post(&self, command: H::Command) -> Result<(), Full<H::Command>> {
        post(&self.mailbox, &self.port, command)
    }

    /// Makes the descriptor readable, or ends the wait of a poll.
    pub fn wake(&self) {
        self.port.wake();
    }
}

pub(crate) fn post<C>(mailbox: &Mailbox<C>, port: &Port, command: C) -> Result<(), Full<C>> {
    if port.is_closed() {
        return Err(Full(command));
    }
    mailbox.commands.push(command).map_err(Full)?;
    port.notify();
    Ok(())
}

impl<H: Handler> LocalShard<H> {
    /// A shard with the driver that the configuration asks for. [`EngineConfig::shards`] must
    /// be 1.
    ///
    /// # Errors
    /// Unusable settings, or no driver.
    pub fn new(mut config: EngineConfig, handler: H) -> Result<Self, EngineError> {
        config.shards = 1;
        let shared = Shared::new(config)?;
        let driver = AnyDriver::open(&shared.config, shared.driver)?;
        let mailbox = Arc::new(Mailbox::new(shared.config.mailbox));
        Self::build(shared, driver, handler, mailbox)
    }
}

impl<H: Handler, D: Driver> LocalShard<H, D> {
    /// A shard over any driver; its clock is the driver's, so that a simulation runs in virtual
    /// time.
    ///
    /// # Errors
    /// Unusable settings.
    pub fn with_driver(
        mut config: EngineConfig,
        driver: D,
        handler: H,
    ) -> Result<Self, EngineError> {
        config.shards = 1;
        let shared = Shared::with_origin(config, DriverChoice::Auto, driver.now())?;
        let mailbox = Arc::new(Mailbox::new(shared.config.mailbox));
        Self::build(shared, driver, handler, mailbox)
    }

    pub(crate) fn build(
        shared: Arc<Shared>,
        driver: D,
        handler: H,
        mailbox: Arc<Mailbox<H::Command>>,
    ) -> Result<Self, EngineError> {
        let port = shared.ports[0].clone();
        let shard = Shard::new(shared, 0, driver, handler, mailbox.clone())?;
        shard.watch_driven();
        Ok(Self { shard, mailbox, port, told: false, ended: None })
    }

    /// Listens with a socket of the driver, which has the address `config.addr`. For drivers whose
    /// sockets are not the system's.
    ///
    /// # Errors
    /// Unusable settings.
    pub fn listen_on(
        &mut self,
        driver_socket: u16,
        config: &ListenConfig,
    ) -> Result<Listener, EngineError> {
        let core = &mut self.shard.core;
        let listener = listener_config(config, core.shared.key_log.clone())?;
        let id = core.shared.new_listener();
        core.listen_adopted(driver_socket, config.addr, id, &listener)
            .map_err(|e| EngineError::system("listen", e))?;
        Ok(Listener { id, local_addr: config.addr })
    }

    /// Connects through a socket of the driver, which has the address `local`.
    ///
    /// # Errors
    /// Too many sockets.
    pub fn connect_through(
        &mut self,
        driver_socket: u16,
        local: SocketAddr,
    ) -> Result<(), EngineError> {
        let purpose = Purpose::Client(Family::of(&[local]));
        let adopted = self.shard.core.sockets.adopt(driver_socket, local, purpose);
        adopted.map(|_| ()).map_err(|e| EngineError::system("client socket", e))
    }

    /// Does what there is to do, waiting at most `budget` for something: zero returns at once,
    /// `None` waits as long as it takes. Returns the number of things that happened; 0 means that
    /// nothing is left to do before the next wake, datagram or deadline.
    ///
    /// # Errors
    /// [`EngineError::HandlerPanicked`], once; the driver's, which leave the shard unusable.
    pub fn poll(&mut self, budget: Option<Duration>) -> Result<u64, EngineError> {
        if self.shard.finished {
            return Err(EngineError::Stopped);
        }
        let happened = self.shard.turn(budget);
        // What was written leaves now: the next poll may be far away.
        let flushed = self.shard.driver.flush();
        if self.shard.embedded {
            // What is there already shows in the next timeout.
            let _ = self.port.park(&self.mailbox);
            self.shard.watch_embedded();
        }
        let happened = happened?;
        flushed.map_err(|e| EngineError::system("sending", e))?;
        if let Some(message) = self.shard.handler.failure()
            && !self.told
        {
            self.told = true;
            return Err(EngineError::HandlerPanicked { shard: 0, message: message.to_owned() });
        }
        Ok(happened)
    }

    /// A descriptor that is readable when [`poll`](Self::poll) has work; `None` where the driver
    /// has none.
    pub fn fd(&mut self) -> Option<i32> {
        let fd = self.shard.driver.fd();
        if fd.is_some() && !self.shard.embedded {
            self.shard.embedded = true;
            let _ = self.port.park(&self.mailbox);
        }
        fd
    }

    /// How long until [`poll`](Self::poll) has work even if nothing arrives; zero when it has some
    /// now, `None` when it has none planned.
    pub fn next_timeout(&self) -> Option<Duration> {
        self.shard.sleep_time()
    }

    /// The driver's name.
    pub fn driver_name(&self) -> &'static str {
        self.shard.driver.name()
    }

    /// The driver, for drivers that are more than one.
    pub const fn driver_mut(&mut self) -> &mut D {
        &mut self.shard.driver
    }

    /// Reaches this shard from other threads.
    pub fn handle(&self) -> LocalHandle<H> {
        LocalHandle { mailbox: self.mailbox.clone(), port: self.port.clone() }
    }

    /// The handler; `None` after it panicked.
    pub const fn handler_mut(&mut self) -> Option<&mut H> {
        self.shard.handler.get()
    }

    /// Calls `f` with a context: opening, sending, connecting from outside the handler's calls.
    /// What it does is carried out by the next [`poll`](Self::poll). `None` after the handler
    /// panicked.
    pub fn with_context<R>(&mut self, f: impl FnOnce(&mut Context<'_>, &mut H) -> R) -> Option<R> {
        self.shard.with_context(f)
    }

    /// Counters and histograms.
    pub fn stats(&self) -> ShardStats {
        self.shard.stats()
    }

    /// Starts to end every connection; poll on until [`is_finished`](Self::is_finished).
    pub fn begin_shutdown(&mut self, linger: Duration) {
        let (report, end) = bounded(1);
        self.ended = Some(end);
        self.shard.shutdown(linger, report);
    }

    /// Whether the shard has ended its connections and does nothing more.
    pub const fn is_finished(&self) -> bool {
        self.shard.is_finished()
    }

    /// What became of each connection, once after [`is_finished`](Self::is_finished).
    pub fn take_report(&mut self) -> Option<ShutdownReport> {
        let end = self.ended.as_ref()?.try_recv().ok()?;
        Some(ShutdownReport::from_ends(vec![end]))
    }

    /// Ends every connection, polling until that is done or the limits have passed.
    ///
    /// # Errors
    /// The driver's.
    pub fn shutdown(mut self, linger: Duration) -> Result<ShutdownReport, EngineError> {
        self.end(linger)
    }

    pub(crate) fn end(&mut self, linger: Duration) -> Result<ShutdownReport, EngineError> {
        self.begin_shutdown(linger);
        while !self.is_finished() {
            match self.poll(Some(Duration::from_millis(100))) {
                Ok(_) | Err(EngineError::HandlerPanicked { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(self.take_report().unwrap_or_default())
    }

    #[cfg(test)]
    pub(crate) fn port(&self) -> &Port {
        &self.port
    }

    /// Tells every peer that the connection ends, and waits for nobody.
    pub(crate) fn stop(&mut self) {
        if !self.is_finished() && self.port.control(Control::Stop).is_ok() {
            let _ = self.poll(Some(Duration::ZERO));
        }
    }
}

impl<H: Handler, D: Driver> Drop for LocalShard<H, D> {
    fn drop(&mut self) {
        self.stop();
    }
}

impl<H: Handler, D: Driver> std::fmt::Debug for LocalShard<H, D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("LocalShard").field(&self.shard).finish()
    }
}
