//! Each row of behaviours §2 that concerns a client, in virtual time.

mod events;
mod lifecycle;
mod pair;
mod properties;
mod rules;

use super::*;

pub(super) const START: Instant = Instant::from_nanos(1_000_000_000_000);

pub(super) fn client(name: &str) -> ClientId {
    ClientId::new(name).unwrap()
}

pub(super) fn token(text: &str) -> AccessToken {
    AccessToken::new(text).unwrap()
}

/// A pairing with a clock, and what came out of it.
pub(super) struct Side {
    pub(super) pairing: Pairing,
    pub(super) now: Instant,
    pub(super) sent: Vec<Event>,
    pub(super) notices: Vec<Notice>,
    pub(super) connects: Vec<(ClientId, AccessToken, PairingRole)>,
    pub(super) disconnects: usize,
    /// Everything in order.
    pub(super) log: Vec<Output>,
}

impl Side {
    pub(super) fn with(role: PairingRole, config: PairingConfig) -> Self {
        Self {
            pairing: Pairing::new(role, config).unwrap(),
            now: START,
            sent: Vec::new(),
            notices: Vec::new(),
            connects: Vec::new(),
            disconnects: 0,
            log: Vec::new(),
        }
    }

    pub(super) fn new(role: PairingRole) -> Self {
        Self::with(role, PairingConfig::default())
    }

    /// Active and connected as `me`.
    pub(super) fn connected(role: PairingRole, me: &str) -> Self {
        let mut side = Self::new(role);
        side.call(|p, now| p.set_active(now, true));
        side.call(|p, now| p.assign_client_id(now, Some(client(me))).unwrap());
        side.call(|p, now| p.assign_access_token(now, Some(token("t"))));
        side.call(Pairing::connection_open);
        assert_eq!(side.pairing.state(), PairingState::ReadyToPair);
        side.clear();
        side
    }

    /// Connected as `me` and searching for `partner`, which was just pinged.
    pub(super) fn searching(role: PairingRole, me: &str, partner: &str) -> Self {
        let mut side = Self::connected(role, me);
        side.assign(Some(partner));
        assert_eq!(side.kinds(), [EventType::Ping]);
        side.clear();
        side
    }

    /// The same, and `partner` was just heard.
    pub(super) fn interacting(role: PairingRole, me: &str, partner: &str) -> Self {
        let mut side = Self::searching(role, me, partner);
        side.hear(EventType::Ping, partner);
        assert_eq!(side.pairing.state(), PairingState::Interacting);
        side.clear();
        side
    }

    pub(super) fn call<T>(&mut self, f: impl FnOnce(&mut Pairing, Instant) -> T) -> T {
        let result = f(&mut self.pairing, self.now);
        self.drain();
        result
    }

    pub(super) fn drain(&mut self) {
        while let Some(output) = self.pairing.poll() {
            self.log.push(output.clone());
            match output {
                Output::Connect { client, token, role } => {
                    self.connects.push((client, token, role));
                }
                Output::Disconnect => self.disconnects += 1,
                Output::Send(event) => self.sent.push(event),
                Output::Notice(notice) => self.notices.push(notice),
            }
        }
    }

    pub(super) fn assign(&mut self, partner: Option<&str>) {
        let partner = partner.map(client);
        self.call(|p, now| p.assign_partner(now, partner).unwrap());
    }

    pub(super) fn receive(&mut self, event: &EventRef<'_>) {
        self.call(|p, now| p.receive(now, event));
    }

    /// Receives an event of `from`, which has the other role.
    pub(super) fn hear(&mut self, kind: EventType, from: &str) {
        let role = self.pairing.role().partner();
        self.hear_as(kind, from, role);
    }

    pub(super) fn hear_as(&mut self, kind: EventType, from: &str, role: PairingRole) {
        let to = self.pairing.client().map(ToString::to_string).unwrap_or_default();
        let event = EventRef { to: &to, ..event(kind, from, role) };
        self.receive(&event);
    }

    /// Lets time pass, and does everything that becomes due on the way.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        // What happened just now may have made something due long ago.
        let mut is_first = true;
        while let Some(at) = self.pairing.next_timeout().filter(|at| *at <= end) {
            let is_late = at < self.now && at != Instant::ZERO;
            assert!(is_first || !is_late, "a timeout in the past");
            is_first = false;
            self.now = self.now.max(at);
            let before = self.pairing.clone();
            self.call(Pairing::handle_timeout);
            assert_ne!(self.pairing, before, "a timeout at which nothing happens");
        }
        self.now = end;
    }

    pub(super) fn seconds(&mut self, s: u64) {
        self.pass(Duration::from_secs(s));
    }

    pub(super) fn kinds(&self) -> Vec<EventType> {
        self.sent.iter().map(|e| e.kind).collect()
    }

    /// Types and recipients of what was sent.
    pub(super) fn to(&self) -> Vec<(EventType, &str)> {
        self.sent.iter().map(|e| (e.kind, e.to.as_str())).collect()
    }

    pub(super) fn clear(&mut self) {
        self.sent.clear();
        self.notices.clear();
        self.connects.clear();
        self.log.clear();
        self.disconnects = 0;
    }

    pub(super) fn state(&self) -> PairingState {
        self.pairing.state()
    }
}

pub(super) fn event(kind: EventType, from: &str, role: PairingRole) -> EventRef<'_> {
    EventRef {
        kind,
        subtype: 0,
        from,
        to: "",
        role: Some(role),
        sent: 1,
        received: 0,
        buffered: false,
        body: b"",
    }
}
