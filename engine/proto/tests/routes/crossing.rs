//! Both peers connect at random moments, over a relay that loses, overtakes, repeats and damages
//! packets, to applications that take their time: whatever happens, one connection comes of it.

use crate::seeded;
use crate::sim::app::Conn;
use crate::sim::node::{NodeConfig, OnIncoming};
use crate::sim::peers::{A, B, Peers, peer};
use crate::sim::rng::Rng;
use crate::sim::world::{World, relay_addr};
use crate::sim::{ms, secs, tls};
use trunkline_proto::endpoint::ListenerConfig;
use trunkline_proto::error::Reason;
use trunkline_proto::handshake::{ClientAuth, Trust};
use trunkline_proto::ids::{ConnHandle, Role};
use trunkline_proto::limits::RELAY_SOCKET;
use trunkline_proto::status::Status;
use trunkline_proto::time::{Duration, Instant};

/// What one peer does, and when.
struct Plan {
    connects: Duration,
    /// It answers from then on.
    listens: Duration,
    /// So much after it is told of a connection its application accepts that.
    accepts_after: Duration,
    /// Its own connection fails: it expects another peer.
    distrusts: bool,
    /// Its application closes its own connection, unless that is agreed by then.
    closes: Option<Duration>,
}

struct Run {
    peers: Peers,
    plans: [Plan; 2],
    /// When the application was told of each of the peer's connections.
    told: [Vec<(ConnHandle, Instant)>; 2],
    /// Each one's own connection, once it is begun.
    owns: [Option<ConnHandle>; 2],
    /// It was begun by a side that had accepted the other one.
    apart: bool,
}

impl Run {
    fn new(seed: u64, plan: impl Fn(&mut Rng) -> Plan) -> Self {
        let mut rng = Rng::new(seed).fork(77);
        let mut w = World::new(seed);
        let plans = [plan(&mut rng), plan(&mut rng)];
        // Which of the two identities is lower is left to chance, too.
        let first = 1_000 + 2 * rng.below(50);
        for (node, plan) in plans.iter().enumerate() {
            let number = first + node as u64;
            let listen_relay = plan.listens == Duration::ZERO;
            w.add(["a", "b"][node], NodeConfig { listen_relay, ..peer(number) });
            let at_once = plan.accepts_after == Duration::ZERO;
            w.nodes[node].policy.incoming =
                if at_once { OnIncoming::Accept } else { OnIncoming::Ignore };
            let link = w.relay_from(node);
            link.delay = ms(rng.between(5, 120));
            link.jitter = ms(rng.below(20));
            link.loss = rng.pick(&[0, 0, 500, 1_500]);
            link.reorder = rng.pick(&[0, 1_000, 3_000]);
            link.reorder_by = ms(rng.between(10, 300));
            link.duplicate = rng.pick(&[0, 1_000, 3_000]);
            link.corrupt = rng.pick(&[0, 0, 300]);
        }
        let none = ConnHandle { slot: u32::MAX, generation: u32::MAX };
        let peers = Peers { w, conns: [none; 2] };
        let told = [Vec::new(), Vec::new()];
        Self { peers, plans, told, owns: [None; 2], apart: false }
    }

    fn conn(&self, node: usize, conn: ConnHandle) -> &Conn {
        self.peers.w.nodes[node].app.conn(conn)
    }

    fn lower(&self) -> usize {
        let id = |node: usize| self.peers.w.nodes[node].config.identity.peer_id();
        usize::from(id(B) < id(A))
    }

    /// The connections that were agreed and live.
    fn live(&self, node: usize) -> Vec<&Conn> {
        let conns = self.peers.w.nodes[node].app.conns.values();
        conns.filter(|c| matches!(c.status, Status::FindingRoute | Status::Connected)).collect()
    }

    fn begin(&mut self, node: usize) {
        self.apart |= !self.live(node).is_empty();
        let mut config = self.peers.config(node);
        if self.plans[node].distrusts {
            let identity = &self.peers.w.nodes[node].config.identity;
            let trust = Trust::Pins(vec![tls::host_id().peer_id()]);
            config.tls = tls::client_tls(&trust, Some(identity));
        }
        let relay = relay_addr(1 - node);
        let conn = self.peers.w.call(node, |ep, now, _| ep.connect_relayed(now, relay, &config));
        let conn = conn.expect("connect");
        let known = Conn::new(conn, Role::Client, relay);
        self.peers.w.nodes[node].app.conns.insert(conn, known);
        self.owns[node] = Some(conn);
    }

    fn listen(&mut self, node: usize) {
        let auth = ClientAuth::Required(Trust::DangerousAny);
        let tls = tls::host_tls(&self.peers.w.nodes[node].config.identity, &auth);
        let listener = ListenerConfig { tls, connection: None };
        let listens = self.peers.w.call(node, |ep, _, _| ep.listen(RELAY_SOCKET, listener));
        listens.expect("listen");
        self.plans[node].listens = Duration::ZERO;
    }

    /// What is due at a peer by now.
    fn act(&mut self, node: usize) {
        let now = self.peers.w.now;
        let due = |after: Duration| now.since(Instant::ZERO) >= after;
        if self.plans[node].listens > Duration::ZERO && due(self.plans[node].listens) {
            self.listen(node);
        }
        if self.owns[node].is_none() && due(self.plans[node].connects) {
            self.begin(node);
        }
        if let Some(own) = self.owns[node]
            && self.plans[node].closes.is_some_and(due)
            && self.conn(node, own).status == Status::Connecting
        {
            self.plans[node].closes = None;
            self.peers.w.nodes[node].close(now, own, None).expect("close");
        }
        let conns: Vec<ConnHandle> = self.peers.w.nodes[node].app.conns.keys().copied().collect();
        for conn in conns {
            let c = self.conn(node, conn);
            let (role, status, known) = (c.role, c.status, c.known);
            if status == Status::FindingRoute {
                let relayed = self.peers.w.call(node, |ep, now, _| ep.use_relay(now, conn));
                relayed.expect("use_relay");
            }
            if role != Role::Host || !known || status != Status::Connecting {
                continue;
            }
            let told = self.told[node].iter().find(|(of, _)| *of == conn).map(|(_, at)| *at);
            let at = told.unwrap_or(now);
            if told.is_none() {
                self.told[node].push((conn, now));
            }
            let waits = self.plans[node].accepts_after;
            if waits > Duration::ZERO && now.since(at) >= waits && !self.conn(node, conn).accepted {
                let accepted = self.peers.w.call(node, |ep, now, _| ep.accept(now, conn));
                accepted.expect("accept");
                self.peers.w.nodes[node].app.conn_mut(conn).accepted = true;
            }
        }
    }

    /// Until everything is settled.
    fn go(&mut self) {
        while self.peers.w.now < Instant::from_nanos(45_000_000_000) {
            let step = if self.peers.w.now.as_nanos() < 3_000_000_000 { ms(1) } else { ms(25) };
            self.peers.w.run_for(step);
            self.act(A);
            self.act(B);
            let conns = self.peers.w.nodes.iter().flat_map(|n| n.app.conns.values());
            if conns.filter(|c| c.status == Status::Connected).count() == 2 {
                // What an idle connection makes of losses is of no interest here.
                for node in [A, B] {
                    self.peers.w.relay_from(node).loss = 0;
                }
            }
        }
    }

    /// One connection lives, the same one at both; whose client has it?
    fn survivor(&self) -> usize {
        let live = [A, B].map(|node| self.live(node));
        let roles: Vec<Vec<Role>> =
            live.iter().map(|l| l.iter().map(|c| c.role).collect()).collect();
        let client = usize::from(roles[A] != [Role::Client]);
        assert_eq!(roles[client], [Role::Client], "{roles:?}");
        assert_eq!(roles[1 - client], [Role::Host], "{roles:?}");
        let key = |node: usize| self.peers.w.nodes[node].endpoint.route_key(live[node][0].handle);
        assert!(key(A).is_some() && key(A) == key(B), "two connections, each with one side");
        client
    }

    /// Whatever ended did so for a reason that its application was told.
    fn check_ends(&self, may_fail: bool) {
        for node in [A, B] {
            for c in self.peers.w.nodes[node].app.conns.values().filter(|c| c.known) {
                let reason = c.reason.as_ref().map(|r| r.reason);
                match c.status {
                    Status::Connected => {}
                    Status::ClosedByPeer if reason == Some(Reason::SUPERSEDED) => {
                        let by = c.superseded_by.expect("told for which");
                        let by = self.conn(node, by);
                        assert_ne!(by.role, c.role, "one of one's own was taken for the other's");
                        assert!(by.status != Status::Connecting);
                    }
                    status => assert!(may_fail, "{node}: {:?} {status:?}, {reason:?}", c.role),
                }
            }
        }
    }
}

/// Around the same time, with what makes a difference in between.
fn at_once(rng: &mut Rng) -> Plan {
    let instant = rng.chance(4_000);
    Plan {
        connects: ms(if instant { 0 } else { rng.below(500) }),
        listens: Duration::ZERO,
        accepts_after: ms(rng.pick(&[0, 0, 1, 30, 150, 400, 1_000])),
        distrusts: false,
        closes: None,
    }
}

#[test]
fn one_comes_of_two_at_random_moments() {
    seeded("crossing::one_comes_of_two_at_random_moments", 300, |seed| {
        let mut run = Run::new(seed, at_once);
        let delay = [A, B].map(|node| run.peers.w.relay_from(node).delay);
        let [a, b] = [&run.plans[A], &run.plans[B]].map(|plan| plan.connects);
        run.go();
        run.check_ends(run.apart);
        if run.apart {
            return run.peers.w.finish();
        }
        let survivor = run.survivor();
        // Neither had heard of the other when it began.
        let blind = a < b + delay[B] && b < a + delay[A];
        let lower = run.lower();
        let own = run.owns[lower].expect("begun");
        if blind {
            assert_eq!(survivor, lower, "the higher one survived");
        } else {
            // It was told of the other one first, and accepted that in time.
            assert!(survivor == lower || run.conn(lower, own).superseded_by.is_some());
        }
        run.peers.w.finish();
    });
}

#[test]
fn one_comes_of_two_if_one_can() {
    seeded("crossing::one_comes_of_two_if_one_can", 300, |seed| {
        let plan = |rng: &mut Rng| {
            let mut plan = at_once(rng);
            match rng.below(6) {
                0 => plan.listens = ms(rng.between(1, 9_000)),
                1 => plan.distrusts = true,
                2 => plan.closes = Some(ms(rng.below(1_000))),
                3 => plan.accepts_after = ms(rng.between(1_000, 8_000)),
                4 => plan.connects = ms(rng.below(6_000)),
                _ => {}
            }
            plan
        };
        let mut run = Run::new(seed, plan);
        let sound = |plan: &Plan| !plan.distrusts && plan.closes.is_none();
        let sound = [A, B].map(|node| sound(&run.plans[node]));
        let slow = |plan: &Plan| plan.accepts_after > secs(1) || plan.listens > secs(5);
        let slow = [A, B].map(|node| slow(&run.plans[node]));
        run.go();
        run.check_ends(true);
        let live = [A, B].map(|node| run.live(node).len());
        assert!(run.apart || live[A] <= 1 && live[B] <= 1, "two live: {live:?}");
        // One of the two had nothing in its way, and time enough.
        let free = [A, B].iter().any(|n| sound[*n] && !slow[1 - *n]);
        if free && !run.apart && sound == [true; 2] {
            run.survivor();
        }
        run.peers.w.finish();
    });
}
