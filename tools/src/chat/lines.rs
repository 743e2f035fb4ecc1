//! Lines between two people, over any way that loses, repeats and ends.
//!
//! Each side has a session, a number that it drew when it started. What it says names its own
//! session and that of the other: what was said to an earlier one is void, so that nothing can be
//! said again later. Lines are numbered from 1 and arrive once, in order; each is sent until it is
//! acknowledged, at most [`WINDOW`] at a time.

use std::collections::VecDeque;

/// Lines under way at once.
pub const WINDOW: usize = 16;
/// Lines that wait at once.
pub const MAX_WAITING: usize = 1024;
/// Longest line, in bytes; longer ones are cut into several.
pub const MAX_LINE: usize = 4096;

/// Former sessions that are remembered.
const MAX_RETIRED: usize = 4096;
const HEADER: usize = 25;
const HELLO: u8 = 0;
const LINE: u8 = 1;
const ACK: u8 = 2;

/// What came of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The other one is there, for the first time or anew.
    Arrived,
    /// It says this.
    Line(String),
    /// It has our lines up to this one.
    Delivered(u64),
}

/// Both directions. See the module.
#[derive(Debug)]
pub struct Lines {
    own: u64,
    other: u64,
    /// Sessions that the other one had before: nothing of theirs counts any more.
    retired: VecDeque<u64>,
    /// Number of the first line that waits.
    first: u64,
    waiting: VecDeque<String>,
    sent: usize,
    received: u64,
    out: VecDeque<Vec<u8>>,
}

impl Lines {
    /// For a session with this number, which is not 0.
    pub fn new(session: u64) -> Self {
        let (waiting, out) = (VecDeque::new(), VecDeque::new());
        let (own, retired) = (session.max(1), VecDeque::new());
        Self { own, other: 0, retired, first: 1, waiting, sent: 0, received: 0, out }
    }

    /// The next packet to send.
    pub fn poll(&mut self) -> Option<Vec<u8>> {
        self.out.pop_front()
    }

    /// Whether something was said that has no answer.
    pub fn wants_again(&self) -> bool {
        self.other == 0 || !self.waiting.is_empty()
    }

    /// Lines that were not acknowledged.
    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Says something. Returns the number of its last line, or `None` when too much waits.
    pub fn say(&mut self, text: &str) -> Option<u64> {
        let mut parts = Vec::new();
        let mut rest = text;
        while rest.len() > MAX_LINE {
            let end = (0..=MAX_LINE).rev().find(|at| rest.is_char_boundary(*at)).unwrap_or(0);
            let (part, after) = rest.split_at(end);
            parts.push(part.to_owned());
            rest = after;
        }
        parts.push(rest.to_owned());
        if self.waiting.len() + parts.len() > MAX_WAITING {
            return None;
        }
        self.waiting.extend(parts);
        self.send_more();
        Some(self.first + self.waiting.len() as u64 - 1)
    }

    /// There is a way to the other one (again), or some time has passed: what has no answer is said
    /// once more.
    pub fn again(&mut self) {
        self.out.clear();
        if self.other == 0 {
            self.push(HELLO, 0, b"");
        }
        self.sent = 0;
        self.send_more();
    }

    /// There is a way to the other one: says that we are here.
    pub fn greet(&mut self) {
        self.again();
        if self.other != 0 {
            self.push(HELLO, 0, b"");
        }
    }

    /// A packet of the other one.
    pub fn receive(&mut self, packet: &[u8]) -> Option<Heard> {
        let (header, text) = packet.split_first_chunk::<HEADER>()?;
        let number = |at: usize| {
            header[at..at + 8].iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte))
        };
        let (from, to, kind, seq) = (number(0), number(8), header[16], number(17));
        if from == 0 || from == self.own || self.retired.contains(&from) {
            return None;
        }
        if kind == HELLO {
            return self.hear_hello(from, to);
        }
        if from != self.other || to != self.own {
            return None;
        }
        match kind {
            LINE if text.len() <= MAX_LINE => self.hear_line(seq, text),
            ACK => self.hear_ack(seq),
            _ => None,
        }
    }

    fn hear_hello(&mut self, from: u64, to: u64) -> Option<Heard> {
        let is_new = from != self.other;
        // One who names us as the other knows us; one who names nobody must learn of us. Anything
        // else was for a session before ours.
        if to != 0 && to != self.own {
            return None;
        }
        if is_new && to == 0 && self.other != 0 {
            // It has started anew, or this was said long ago: who answers our question is there.
            self.push_to(from, HELLO, 0, b"");
            return None;
        }
        if is_new {
            if self.other != 0 {
                if self.retired.len() == MAX_RETIRED {
                    self.retired.pop_front();
                }
                self.retired.push_back(self.other);
            }
            self.other = from;
            self.received = 0;
            self.first = 1;
            self.sent = 0;
        }
        if to == 0 {
            self.push(HELLO, 0, b"");
        }
        if is_new {
            if to != 0 {
                // So that it knows that we know.
                self.push(HELLO, 0, b"");
            }
            self.send_more();
        }
        is_new.then_some(Heard::Arrived)
    }

    fn hear_line(&mut self, seq: u64, text: &[u8]) -> Option<Heard> {
        let line = core::str::from_utf8(text).ok()?;
        let next = seq == self.received + 1;
        if next {
            self.received = seq;
        }
        self.push(ACK, self.received, b"");
        next.then(|| Heard::Line(line.to_owned()))
    }

    fn hear_ack(&mut self, seq: u64) -> Option<Heard> {
        let end = self.first + self.sent as u64;
        if seq < self.first || seq >= end {
            return None;
        }
        let count = (seq - self.first + 1) as usize;
        self.waiting.drain(..count);
        self.first = seq + 1;
        self.sent -= count;
        self.send_more();
        Some(Heard::Delivered(seq))
    }

    fn send_more(&mut self) {
        if self.other == 0 {
            return;
        }
        while self.sent < WINDOW.min(self.waiting.len()) {
            let text = self.waiting[self.sent].clone();
            self.push(LINE, self.first + self.sent as u64, text.as_bytes());
            self.sent += 1;
        }
    }

    fn push(&mut self, kind: u8, seq: u64, text: &[u8]) {
        self.push_to(self.other, kind, seq, text);
    }

    fn push_to(&mut self, to: u64, kind: u8, seq: u64, text: &[u8]) {
        let mut packet = Vec::with_capacity(HEADER + text.len());
        packet.extend(self.own.to_be_bytes());
        packet.extend(to.to_be_bytes());
        packet.push(kind);
        packet.extend(seq.to_be_bytes());
        packet.extend_from_slice(text);
        self.out.push_back(packet);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Carries packets between two until none is left; `lose` decides which are lost.
    fn carry(a: &mut Lines, b: &mut Lines, mut lose: impl FnMut() -> bool) -> [Vec<Heard>; 2] {
        let mut heard = [Vec::new(), Vec::new()];
        for _ in 0..10_000 {
            let Some((packet, to)) = a.poll().map(|p| (p, 1)).or_else(|| b.poll().map(|p| (p, 0)))
            else {
                return heard;
            };
            if !lose() {
                let side = if to == 1 { &mut *b } else { &mut *a };
                heard[to].extend(side.receive(&packet));
            }
        }
        panic!("it never ends");
    }

    fn pair() -> (Lines, Lines) {
        let (mut a, mut b) = (Lines::new(1), Lines::new(2));
        a.greet();
        let heard = carry(&mut a, &mut b, || false);
        assert_eq!(heard, [vec![Heard::Arrived], vec![Heard::Arrived]]);
        (a, b)
    }

    fn lines(heard: &[Heard]) -> Vec<&str> {
        heard
            .iter()
            .filter_map(|h| if let Heard::Line(l) = h { Some(&l[..]) } else { None })
            .collect()
    }

    #[test]
    fn lines_arrive_and_are_acknowledged() {
        let (mut a, mut b) = pair();
        assert_eq!((a.say("one"), a.say("two"), b.say("back")), (Some(1), Some(2), Some(1)));
        let [at_a, at_b] = carry(&mut a, &mut b, || false);
        assert_eq!(lines(&at_b), ["one", "two"]);
        assert!(at_a.contains(&Heard::Delivered(2)) && at_a.contains(&Heard::Line("back".into())));
        assert_eq!((a.waiting(), b.waiting()), (0, 0));
    }

    #[test]
    fn what_is_said_before_the_other_is_there_waits_for_it() {
        let (mut a, mut b) = (Lines::new(1), Lines::new(2));
        a.say("early");
        assert_eq!(a.poll(), None);
        b.greet();
        let [_, at_b] = carry(&mut a, &mut b, || false);
        assert_eq!(lines(&at_b), ["early"]);
    }

    #[test]
    fn one_who_starts_anew_gets_what_was_not_acknowledged_and_nothing_else() {
        let (mut a, mut b) = pair();
        a.say("old");
        carry(&mut a, &mut b, || false);
        a.say("lost");
        while a.poll().is_some() {}
        let mut c = Lines::new(3);
        c.say("hello again");
        c.greet();
        let [at_a, at_c] = carry(&mut a, &mut c, || false);
        assert_eq!(lines(&at_c), ["lost"]);
        assert_eq!(lines(&at_a), ["hello again"]);
        assert_eq!(at_a[0], Heard::Arrived);
    }

    #[test]
    fn nothing_can_be_said_again() {
        let (mut a, mut b) = pair();
        a.say("pay 10");
        let packet = a.poll().unwrap();
        assert_eq!(b.receive(&packet), Some(Heard::Line("pay 10".into())));
        assert_eq!(b.receive(&packet), None);
        // Nor to one who has started anew, nor does a greeting of before bring one back.
        let mut c = Lines::new(3);
        let mut old = Lines::new(1);
        old.greet();
        let greeting = old.poll().unwrap();
        c.receive(&greeting);
        assert_eq!(c.receive(&packet), None);
        let mut d = Lines::new(4);
        d.greet();
        carry(&mut b, &mut d, || false);
        assert_eq!(b.receive(&greeting), None);
        a.greet();
        while let Some(old) = a.poll() {
            assert_eq!(b.receive(&old), None, "a is over");
        }
        b.say("for d");
        let [_, at_d] = carry(&mut b, &mut d, || false);
        assert_eq!(lines(&at_d), ["for d"]);
    }

    #[test]
    fn long_texts_are_cut_and_too_many_refused() {
        let (mut a, mut b) = pair();
        let text = "ä".repeat(MAX_LINE);
        assert_eq!(a.say(&text), Some(2));
        let [_, at_b] = carry(&mut a, &mut b, || false);
        assert_eq!(lines(&at_b).concat(), text);
        assert!((0..MAX_WAITING).all(|_| a.say("x").is_some()));
        assert_eq!(a.say("x"), None);
    }

    proptest! {
        /// Whatever is lost, every line arrives once and in order when it is said often enough.
        #[test]
        fn every_line_arrives_once_in_order(seed in any::<u64>(), count in 1..60usize) {
            let mut state = seed | 1;
            let mut random = move || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state
            };
            let (mut a, mut b) = (Lines::new(1), Lines::new(2));
            let said: Vec<String> = (0..count).map(|n| n.to_string()).collect();
            for line in &said {
                a.say(line);
            }
            let mut arrived = Vec::new();
            for round in 0..1000 {
                if round % 2 == 0 { a.greet() } else { b.again() }
                let [_, at_b] = carry(&mut a, &mut b, || random() % 3 == 0);
                arrived.extend(lines(&at_b).iter().map(|l| (*l).to_owned()));
                if a.waiting() == 0 {
                    break;
                }
            }
            prop_assert_eq!(arrived, said);
        }

        #[test]
        fn any_bytes_are_survived(packets in proptest::collection::vec(
            proptest::collection::vec(any::<u8>(), 0..60), 0..20)) {
            let (mut a, mut b) = pair();
            for packet in packets {
                a.receive(&packet);
            }
            a.say("still here");
            a.again();
            b.again();
            carry(&mut a, &mut b, || false);
        }
    }
}
