//! TCP connections of a simulated world: bytes in order, in pieces of any length, with a window.

use super::node::Node;
use super::rng::Rng;
use super::world::NodeId;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use trunkline_proto::endpoint::StreamNeeds;
use trunkline_proto::ids::ConnHandle;
use trunkline_proto::time::{Duration, Instant};

/// What a carried piece brings.
#[derive(Clone, Debug)]
pub enum Piece {
    /// SYN: the host is asked.
    Connect,
    /// The host has taken it.
    Connected,
    Bytes(Vec<u8>),
    /// The sender's direction ends.
    Fin,
    /// The connection breaks, or is refused.
    Reset,
}

/// One end of a connection.
#[derive(Debug)]
pub struct End {
    pub node: NodeId,
    pub conn: Option<ConnHandle>,
    /// TCP stands: bytes may be sent.
    up: bool,
    /// It may have something to send.
    wants: bool,
    fin_sent: bool,
    closed: bool,
    /// Bytes sent that the other end has not read.
    in_flight: usize,
    /// When the last piece to this end arrives.
    last_arrival: Instant,
    /// Arrived and not read.
    arrived: VecDeque<u8>,
    fin_arrived: bool,
    fin_told: bool,
}

impl End {
    fn new(node: NodeId, conn: Option<ConnHandle>) -> Self {
        Self {
            node,
            conn,
            up: false,
            wants: true,
            fin_sent: false,
            closed: false,
            in_flight: 0,
            last_arrival: Instant::ZERO,
            arrived: VecDeque::new(),
            fin_arrived: false,
            fin_told: false,
        }
    }
}

/// All TCP connections of a world.
#[derive(Debug)]
pub struct Tcp {
    wires: Vec<[End; 2]>,
    by_conn: BTreeMap<(NodeId, ConnHandle), (usize, usize)>,
    /// Bytes that may be under way in one direction.
    pub window: usize,
    /// Longest piece that is read at once.
    pub longest: u64,
    /// One way.
    pub delay: Duration,
    /// Most that is added to it.
    pub jitter: Duration,
    /// What is sent is kept, by sender, for tests that look at the wire.
    pub bytes: u64,
    /// Nobody takes connections.
    pub refused: bool,
    rng: Rng,
}

/// A piece on its way: to which end of which wire.
pub type Carried = (usize, usize, Piece);

impl Tcp {
    pub fn new(rng: Rng) -> Self {
        Self {
            wires: Vec::new(),
            by_conn: BTreeMap::new(),
            window: 200_000,
            longest: 70_000,
            delay: Duration::from_micros(700),
            jitter: Duration::from_micros(700),
            bytes: 0,
            refused: false,
            rng,
        }
    }

    /// Nothing is under way and nothing can be read.
    pub fn is_quiet(&self) -> bool {
        self.wires.iter().flatten().all(|e| e.closed || e.arrived.is_empty())
    }

    /// What the nodes have to send now, each with the time of its arrival.
    pub fn transmit(&mut self, now: Instant, nodes: &mut [Node]) -> Vec<(Instant, Carried)> {
        let mut out = Vec::new();
        for id in 0..nodes.len() {
            if !nodes[id].alive {
                continue;
            }
            while let Some(conn) = nodes[id].call(now, |ep, _, _| ep.next_stream()) {
                if !self.by_conn.contains_key(&(id, conn)) {
                    self.begin(id, conn, now, nodes, &mut out);
                }
                if let Some((wire, end)) = self.by_conn.get(&(id, conn)).copied() {
                    self.wires[wire][end].wants = true;
                }
            }
            while let Some(closed) = nodes[id].call(now, |ep, _, _| ep.closed_stream()) {
                let Some((wire, end)) = self.by_conn.get(&(id, closed.conn)).copied() else {
                    continue;
                };
                let this = &self.wires[wire][end];
                if this.up && !this.closed && !this.fin_sent && !closed.farewell.is_empty() {
                    let piece = Piece::Bytes(closed.farewell);
                    self.fly(now, (wire, 1 - end, piece), &mut out);
                }
                self.close(now, (wire, end), &mut out);
            }
        }
        for wire in 0..self.wires.len() {
            for end in 0..2 {
                self.write(now, (wire, end), nodes, &mut out);
            }
        }
        out
    }

    fn begin(
        &mut self,
        id: NodeId,
        conn: ConnHandle,
        now: Instant,
        nodes: &[Node],
        out: &mut Vec<(Instant, Carried)>,
    ) {
        let Some(target) = nodes[id].endpoint.stream_target(conn) else { return };
        let wire = self.wires.len();
        let to = node_at(nodes, target).filter(|_| !self.refused);
        self.wires.push([End::new(id, Some(conn)), End::new(to.unwrap_or(usize::MAX), None)]);
        self.by_conn.insert((id, conn), (wire, 0));
        let piece = if to.is_some() { (wire, 1, Piece::Connect) } else { (wire, 0, Piece::Reset) };
        self.fly(now, piece, out);
    }

    fn fly(&mut self, now: Instant, piece: Carried, out: &mut Vec<(Instant, Carried)>) {
        let jitter = Duration::from_nanos(1 + self.rng.below(self.jitter.as_nanos()));
        let end = &mut self.wires[piece.0][piece.1];
        let at = (now + self.delay + jitter).max(end.last_arrival);
        end.last_arrival = at;
        out.push((at, piece));
    }

    fn close(&mut self, now: Instant, at: (usize, usize), out: &mut Vec<(Instant, Carried)>) {
        let (wire, end) = at;
        let this = &mut self.wires[wire][end];
        if std::mem::replace(&mut this.closed, true) {
            return;
        }
        // What was not read resets the connection, as TCP does.
        let unread = !this.arrived.is_empty();
        let fin = !std::mem::replace(&mut this.fin_sent, true);
        if unread {
            self.fly(now, (wire, 1 - end, Piece::Reset), out);
        } else if fin {
            self.fly(now, (wire, 1 - end, Piece::Fin), out);
        }
    }

    fn write(
        &mut self,
        now: Instant,
        at: (usize, usize),
        nodes: &mut [Node],
        out: &mut Vec<(Instant, Carried)>,
    ) {
        let (wire, end) = at;
        let mut buf = Vec::new();
        loop {
            let this = &mut self.wires[wire][end];
            let Some(conn) = this.conn.filter(|_| this.wants && this.up && !this.closed) else {
                return;
            };
            if !nodes[this.node].alive || this.in_flight >= self.window {
                return;
            }
            let node = this.node;
            buf.resize(17_000 + self.rng.below(50_000) as usize, 0);
            let n = nodes[node].call(now, |ep, now, _| ep.stream_transmit(now, conn, &mut buf));
            let this = &mut self.wires[wire][end];
            if n > 0 {
                this.in_flight += n;
                self.bytes += n as u64;
                nodes[node].bytes_out += n as u64;
                self.fly(now, (wire, 1 - end, Piece::Bytes(buf[..n].to_vec())), out);
                continue;
            }
            this.wants = false;
            match nodes[node].endpoint.stream_needs(conn) {
                StreamNeeds::Nothing => {}
                StreamNeeds::Shutdown if this.fin_sent => {}
                StreamNeeds::Shutdown => {
                    this.fin_sent = true;
                    self.fly(now, (wire, 1 - end, Piece::Fin), out);
                }
                StreamNeeds::Close => self.close(now, at, out),
            }
            return;
        }
    }

    /// A piece arrives; gives what follows from that.
    pub fn arrive(
        &mut self,
        now: Instant,
        carried: Carried,
        nodes: &mut [Node],
    ) -> Vec<(Instant, Carried)> {
        let mut out = Vec::new();
        let (wire, end, piece) = carried;
        let this = &mut self.wires[wire][end];
        let node = this.node;
        if nodes.get(node).is_none_or(|n| !n.alive)
            || (this.closed && !matches!(piece, Piece::Connect))
        {
            return out;
        }
        match piece {
            Piece::Connect => {
                let from = nodes[self.wires[wire][0].node].addr;
                let to = &mut nodes[node];
                let accepted =
                    to.call(now, |ep, now, _| ep.accept_stream(now, 0, from, Some(from.ip())));
                match accepted {
                    Ok(conn) => {
                        let this = &mut self.wires[wire][1];
                        (this.conn, this.up) = (Some(conn), true);
                        self.by_conn.insert((node, conn), (wire, 1));
                        self.fly(now, (wire, 0, Piece::Connected), &mut out);
                    }
                    Err(_) => self.fly(now, (wire, 0, Piece::Reset), &mut out),
                }
            }
            Piece::Connected => (this.up, this.wants) = (true, true),
            Piece::Bytes(bytes) => this.arrived.extend(bytes),
            Piece::Fin => this.fin_arrived = true,
            Piece::Reset => {
                this.closed = true;
                if let Some(conn) = this.conn {
                    nodes[node].call(now, |ep, now, app| {
                        ep.stream_failed(now, conn, "connection reset by peer", app);
                    });
                }
            }
        }
        out
    }

    /// Lets every node read what it is ready to read.
    pub fn read(&mut self, now: Instant, nodes: &mut [Node]) {
        for wire in 0..self.wires.len() {
            for end in 0..2 {
                self.read_end(now, wire, end, nodes);
            }
        }
    }

    fn read_end(&mut self, now: Instant, wire: usize, end: usize, nodes: &mut [Node]) {
        loop {
            let this = &mut self.wires[wire][end];
            let Some(conn) = this.conn.filter(|_| !this.closed) else { return };
            let Some(node) = nodes.get_mut(this.node).filter(|n| n.alive) else { return };
            if this.arrived.is_empty() || !node.endpoint.stream_is_readable(conn) {
                if this.fin_arrived && !this.fin_told && this.arrived.is_empty() {
                    (this.fin_told, this.wants) = (true, true);
                    node.call(now, |ep, now, app| ep.stream_finished(now, conn, app));
                }
                return;
            }
            let most = (1 + self.rng.below(self.longest)) as usize;
            let piece: Vec<u8> = this.arrived.drain(..most.min(this.arrived.len())).collect();
            node.packets_in += 1;
            node.call(now, |ep, now, app| ep.stream_receive(now, conn, &piece, app));
            node.react(now);
            let other = &mut self.wires[wire][1 - end];
            other.in_flight = other.in_flight.saturating_sub(piece.len());
        }
    }

    /// Breaks every connection, as a middlebox does: both ends are told.
    pub fn break_all(&mut self, now: Instant) -> Vec<(Instant, Carried)> {
        let mut out = Vec::new();
        for wire in 0..self.wires.len() {
            for end in 0..2 {
                self.fly(now, (wire, end, Piece::Reset), &mut out);
            }
        }
        out
    }
}

fn node_at(nodes: &[Node], addr: SocketAddr) -> Option<NodeId> {
    nodes.iter().position(|n| n.addr == addr)
}
