//! Connections made and closed one after the other, several at once.

#![deny(clippy::print_stdout, clippy::print_stderr)]

use std::collections::HashMap;
use std::time::{Duration, Instant};
use trunkline::{ApiError, Conn, ConnectConfig, Context, Reason};

/// Makes connections and closes them as soon as they stand.
pub struct Handshakes {
    /// What all of them have in common.
    connect: ConnectConfig,
    /// A session is resumed: every connection has the same server name, so that its ticket is found.
    resume: bool,
    /// When those under way began.
    begun: HashMap<Conn, Instant>,
    made: u64,
    resumed: u64,
}

impl Handshakes {
    /// Of connections like this one.
    pub fn new(connect: ConnectConfig, resume: bool) -> Self {
        Self { connect, resume, begun: HashMap::new(), made: 0, resumed: 0 }
    }

    /// Begins the next one.
    pub fn begin(&mut self, cx: &mut Context<'_>) -> Result<(), ApiError> {
        self.made += 1;
        if !self.resume {
            self.connect.server_name = format!("n{}.bench", self.made);
        }
        let now = Instant::now();
        let conn = cx.connect(&self.connect)?;
        self.begun.insert(conn, now);
        Ok(())
    }

    /// A connection stands. If it is one of these, it is closed, and the next begins; gives how long
    /// it took.
    pub fn stands(
        &mut self,
        cx: &mut Context<'_>,
        conn: Conn,
    ) -> Option<Result<Duration, ApiError>> {
        let took = self.begun.remove(&conn)?.elapsed();
        self.resumed += u64::from(cx.info(conn).is_some_and(|info| info.resumed));
        let next = cx.close(conn, Reason::APP.0, "", None).and_then(|()| self.begin(cx));
        Some(next.map(|()| took))
    }

    /// Connections whose session was resumed.
    pub const fn resumed(&self) -> u64 {
        self.resumed
    }

    /// Closes those under way.
    pub fn stop(&mut self, cx: &mut Context<'_>) {
        for (conn, _) in self.begun.drain() {
            let _ = cx.close(conn, Reason::APP.0, "measured", None);
        }
    }
}
