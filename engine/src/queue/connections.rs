//! Listening, connecting, and what can be done with a connection.

use super::callbacks::is_inside;
use super::group::PollGroup;
use super::{QueuedEngine, Runner, lock, with_manual_credit};
use crate::config::{ConnectConfig, IpNet, ListenConfig, Reuse};
use crate::engine::{Listener, listen_all, unlisten_all};
use crate::error::EngineError;
use crate::handle::{Conn, ListenerId};
use crate::handler::Context;
use crate::io::FaultConfig;
use crate::security::{Chosen, choose};
use crate::shard::control::Control;
use std::sync::atomic::Ordering;
use trunkline_proto::endpoint::{ConnInfo, ConnStats};
use trunkline_proto::error::ApiError;
use trunkline_proto::status::Status;

impl QueuedEngine {
    /// Accepts connections at an address, on all shards. Each shows as [`Event::Incoming`](crate::Event::Incoming) in the
    /// default group.
    ///
    /// # Errors
    /// Unusable settings, or the system's refusal of the address.
    pub fn listen(&self, config: &ListenConfig) -> Result<Listener, EngineError> {
        let mut config = config.clone();
        if let Some(connection) = &mut config.connection {
            with_manual_credit(connection);
        }
        match &self.inner.runner {
            // The shard that calls would wait for itself.
            Runner::Threads(_) if is_inside() => {
                listen_all(&self.inner.shared, &config).map(|(listener, _)| listener)
            }
            Runner::Threads(engine) => engine.listen(&config),
            Runner::Local(local) => {
                let (listener, answer) = listen_all(&self.inner.shared, &config)?;
                // Inside a callback the shard is at work, and comes to it afterwards.
                if local.is_driven_here() && !is_inside() {
                    let polled = local.with(|shard| shard.poll(Some(std::time::Duration::ZERO)));
                    let failed = match (polled, answer.try_recv()) {
                        (Err(error), _) => Some(error),
                        (Ok(_), Ok(Err(e))) => {
                            Some(EngineError::system(format!("listen at {}", config.addr), e))
                        }
                        (Ok(_), _) => None,
                    };
                    if let Some(error) = failed {
                        let _ = unlisten_all(&self.inner.shared, listener.id, false);
                        return Err(error);
                    }
                }
                Ok(listener)
            }
        }
    }

    /// Accepts no more connections there. Those that exist live on unless `close_connections`; the
    /// address is free when the last of them is gone.
    pub fn unlisten(&self, id: ListenerId, close_connections: bool) {
        match &self.inner.runner {
            Runner::Threads(_) if is_inside() => {
                let _ = unlisten_all(&self.inner.shared, id, close_connections);
            }
            Runner::Threads(engine) => engine.unlisten(id, close_connections),
            Runner::Local(local) => {
                let _ = unlisten_all(&self.inner.shared, id, close_connections);
                if local.is_driven_here() {
                    let _ = local.with(|shard| shard.poll(Some(std::time::Duration::ZERO)));
                }
            }
        }
    }

    /// Replaces the list of sources whose ConnectionRequests are dropped.
    pub fn set_deny(&self, nets: &[IpNet]) {
        for link in self.inner.links.iter() {
            let _ = link.port.control(Control::Deny(nets.to_vec()));
        }
    }

    /// Changes the faults that the engine adds to what it sends and receives.
    ///
    /// # Errors
    /// An engine that was made without [`EngineConfig::fault`](crate::EngineConfig::fault).
    pub fn set_faults(&self, config: &FaultConfig) -> Result<(), ApiError> {
        if self.inner.shared.config.fault.is_none() {
            let why = "must be given when the engine is made: the driver has nothing to change";
            return Err(ApiError::InvalidArgument { field: "fault", why });
        }
        for link in self.inner.links.iter() {
            let _ = link.port.control(Control::Faults(Box::new(config.clone())));
        }
        Ok(())
    }

    /// The local network has changed: connections are checked at once, and clients move theirs.
    pub fn network_changed(&self) {
        for link in self.inner.links.iter() {
            let _ = link.port.control(Control::NetworkChanged);
        }
    }

    /// Starts a connection, or finds one to share as [`ConnectConfig::reuse`] says; whoever shares
    /// a connection shares its handle, and a close closes it for all. What happens to it shows in
    /// `group`, or in the default group.
    ///
    /// # Errors
    /// Unusable settings, too many connections, or none to share.
    pub fn connect(
        &self,
        config: &ConnectConfig,
        group: Option<&PollGroup>,
    ) -> Result<Conn, ApiError> {
        self.connect_with(config, group, |_| ())
    }

    /// The same, which calls `prepare` with the name of a new connection before anything is told about
    /// it.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn connect_with(
        &self,
        config: &ConnectConfig,
        group: Option<&PollGroup>,
        prepare: impl FnOnce(Conn),
    ) -> Result<Conn, ApiError> {
        // Decided here, where an error can be told.
        let chosen = self.choose(config)?;
        let group = group.map_or(0, |g| g.index);
        let (conn, was_there) = self.share(&chosen, group, false, prepare)?;
        if was_there {
            // It may have been made for a channel request: from now on it is the caller's.
            self.call_conn(conn, |cx, real| {
                cx.keep(real);
            })?;
        }
        Ok(conn)
    }

    /// What a connect comes to, on whichever shard it begins: the queues bound what is not received.
    pub(super) fn choose(&self, config: &ConnectConfig) -> Result<Chosen, ApiError> {
        let mut chosen = choose(&self.inner.shared, config)?;
        if let Some(connection) = &mut chosen.client.connection {
            with_manual_credit(connection);
        }
        Ok(chosen)
    }

    /// A connection to share, or one that is begun now; and whether it was there.
    pub(super) fn share(
        &self,
        chosen: &Chosen,
        group: u32,
        mine: bool,
        prepare: impl FnOnce(Conn),
    ) -> Result<(Conn, bool), ApiError> {
        let mut reusable = lock(&self.inner.reusable);
        let known = reusable.get(&chosen.key).copied().filter(|conn| self.is_live(*conn));
        if chosen.config.reuse != Reuse::ForceNew
            && let Some(conn) = known
        {
            return Ok((conn, true));
        }
        if chosen.config.reuse == Reuse::NeverNew {
            return Err(ApiError::NoConnection("none exists, and a new one is not wanted"));
        }
        let conn = self.begin_connect(chosen.clone(), group, mine, prepare)?;
        if reusable.len() >= 64 && reusable.len().is_power_of_two() {
            reusable.retain(|_, conn| self.is_live(*conn));
        }
        reusable.insert(chosen.key, conn);
        Ok((conn, false))
    }

    /// Begins a connection; one that is `mine` is freed by the shard when it ends.
    fn begin_connect(
        &self,
        mut chosen: Chosen,
        group: u32,
        mine: bool,
        prepare: impl FnOnce(Conn),
    ) -> Result<Conn, ApiError> {
        let next = self.inner.next_shard.fetch_add(1, Ordering::Relaxed);
        let link = &self.inner.links[next % self.inner.links.len()];
        let (index, life) = link.conns.take().ok_or(ApiError::LimitReached {
            what: "connections",
            limit: u64::from(self.inner.shared.config.max_connections),
        })?;
        if let Some(cell) = link.conns.get(index) {
            cell.begin(Status::Connecting, group);
        }
        let conn = link.conn_name(index, life);
        prepare(conn);
        chosen.config.reuse = Reuse::ForceNew;
        let chosen = Box::new(chosen);
        let pushed = Self::post(link, move |h, cx| h.connect(cx, conn, &chosen, mine));
        if let Err(error) = pushed {
            link.conns.give_back(index, life);
            return Err(error);
        }
        Ok(conn)
    }

    pub(super) fn is_live(&self, conn: Conn) -> bool {
        matches!(self.status(conn), Status::Connecting | Status::FindingRoute | Status::Connected)
    }

    pub(super) fn call_conn(
        &self,
        conn: Conn,
        call: impl FnOnce(&mut Context<'_>, Conn) + Send + 'static,
    ) -> Result<(), ApiError> {
        let (link, _) = self.conn(conn)?;
        Self::call(link, move |handler, cx| {
            if let Ok(real) = handler.real_conn(conn) {
                call(cx, real);
            }
        })
    }

    /// Host: takes a connection.
    ///
    /// # Errors
    /// A stale handle, or a full queue.
    pub fn accept(&self, conn: Conn) -> Result<(), ApiError> {
        self.call_conn(conn, |cx, real| {
            let _ = cx.accept(real);
        })
    }

    /// Host: refuses a connection; the peer learns `code` (1000–2999) and `text`. The handle is
    /// stale afterwards.
    ///
    /// # Errors
    /// As [`accept`](Self::accept).
    pub fn reject(&self, conn: Conn, code: u32, text: &str) -> Result<(), ApiError> {
        let (link, cell) = self.conn(conn)?;
        let text = text.to_owned();
        cell.close(conn.handle().generation, || {
            Self::call(link, move |handler, cx| {
                if let Ok(real) = handler.real_conn(conn) {
                    let _ = cx.reject(real, code, &text);
                }
            })
        })
    }

    /// Closes a connection; with `linger`, what was sent reliably is delivered first, for at most
    /// that long. The handle is stale at once; [`Event::Dead`](crate::Event::Dead) says in the end what was delivered.
    ///
    /// # Errors
    /// A stale handle (a second close too), or a full queue.
    pub fn close(
        &self,
        conn: Conn,
        code: u32,
        text: &str,
        linger: Option<std::time::Duration>,
    ) -> Result<(), ApiError> {
        let (link, cell) = self.conn(conn)?;
        let text = text.to_owned();
        let linger = linger.map(Into::into);
        cell.close(conn.handle().generation, || {
            Self::call(link, move |handler, cx| handler.close(cx, conn, code, &text, linger))
        })
    }

    /// The status; [`Status::None`] for a stale handle.
    pub fn status(&self, conn: Conn) -> Status {
        match self.conn(conn) {
            Ok((link, cell)) if link.is_failed() && cell.status() != Status::None => {
                Status::ProblemDetectedLocally
            }
            Ok((_, cell)) => cell.status(),
            Err(_) => Status::None,
        }
    }

    /// What is known of a connection. Waits for its shard.
    ///
    /// # Errors
    /// A stale handle, or a shard that does not answer.
    pub fn info(&self, conn: Conn) -> Result<ConnInfo, ApiError> {
        self.ask(conn, |_, cx, real| cx.info(real))?.ok_or(ApiError::InvalidHandle)
    }

    /// Counters and gauges of a connection. Waits for its shard.
    ///
    /// # Errors
    /// As [`info`](Self::info).
    pub fn stats(&self, conn: Conn) -> Result<ConnStats, ApiError> {
        self.ask(conn, |_, cx, real| cx.stats(real))?.ok_or(ApiError::InvalidHandle)
    }

    /// The connections that the application has not closed, in no particular order, those that are
    /// offered to it among them. Waits for the shards.
    ///
    /// # Errors
    /// As [`info`](Self::info).
    pub fn connections(&self) -> Result<Vec<Conn>, ApiError> {
        let mut found = Vec::new();
        for link in self.inner.links.iter() {
            found.extend(self.ask_shard(link, |handler, _| handler.connections())?);
        }
        found.retain(|conn| self.status(*conn) != Status::None);
        Ok(found)
    }

    /// The engine's clock, which [`SecInfo::established`](crate::SecInfo::established) is read from.
    pub fn now(&self) -> trunkline_proto::time::Instant {
        self.inner.shared.time(std::time::Instant::now())
    }

    /// Asks the peer for a sign of life; no answer within the configured time ends the connection.
    ///
    /// # Errors
    /// A stale handle, or a full queue.
    pub fn check(&self, conn: Conn) -> Result<(), ApiError> {
        self.call_conn(conn, |cx, real| {
            let _ = cx.check(real);
        })
    }

    /// Keeps a number of the application with a connection.
    ///
    /// # Errors
    /// A stale handle.
    pub fn set_user_data(&self, conn: Conn, value: u64) -> Result<(), ApiError> {
        self.conn(conn).map(|(_, cell)| cell.user.store(value, Ordering::Release))
    }

    /// The number kept with a connection; 0 at first.
    ///
    /// # Errors
    /// A stale handle.
    pub fn user_data(&self, conn: Conn) -> Result<u64, ApiError> {
        self.conn(conn).map(|(_, cell)| cell.user.load(Ordering::Acquire))
    }
}
