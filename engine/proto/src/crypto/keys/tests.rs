use super::*;
use crate::handshake::test_support::data_key_pair;

const PTO: Duration = Duration::from_millis(100);

fn t(ms: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(ms)
}

fn pair() -> (DataKeys, DataKeys) {
    let (mut a, mut b) = data_key_pair();
    a.set_pto(PTO);
    b.set_pto(PTO);
    (a, b)
}

struct Sealed {
    pn: u64,
    phase: bool,
    bytes: Vec<u8>,
}

fn seal(keys: &mut DataKeys, pn: u64) -> Sealed {
    let phase = keys.key_phase();
    let mut bytes = vec![0x40 | u8::from(phase); SHORT_HEADER_LEN];
    bytes.extend_from_slice(format!("payload {pn}").as_bytes());
    bytes.extend_from_slice(&[0; TAG_LEN]);
    keys.seal(pn, &mut bytes).unwrap();
    Sealed { pn, phase, bytes }
}

/// Seals without telling `keys`, as a peer with a fault would.
fn seal_raw(keys: &DataKeys, pn: u64) -> Sealed {
    let phase = keys.key_phase();
    let header = [0x40 | u8::from(phase); SHORT_HEADER_LEN];
    let mut payload = format!("payload {pn}").into_bytes();
    let tag = keys.local.encrypt_in_place(pn, &header, &mut payload).unwrap();
    Sealed { pn, phase, bytes: [&header, payload.as_slice(), tag.as_ref()].concat() }
}

fn open(keys: &mut DataKeys, now: Instant, p: &Sealed) -> Result<bool, OpenError> {
    let mut bytes = p.bytes.clone();
    let opened = keys.open(now, p.pn, p.phase, &mut bytes)?;
    assert_eq!(opened.payload, format!("payload {}", p.pn).as_bytes());
    Ok(opened.peer_updated)
}

#[test]
fn both_ways_and_forgeries() {
    let (mut a, mut b) = pair();
    let p = seal(&mut a, 0);
    for i in 0..p.bytes.len() {
        let mut bad = Sealed { bytes: p.bytes.clone(), ..p };
        bad.bytes[i] ^= 1;
        assert_eq!(open(&mut b, t(0), &bad), Err(OpenError::Forged));
    }
    assert_eq!(b.failed_opens(), p.bytes.len() as u64);
    let other_number = Sealed { bytes: p.bytes.clone(), pn: 1, ..p };
    assert_eq!(open(&mut b, t(0), &other_number), Err(OpenError::Forged));
    assert_eq!(open(&mut b, t(0), &p), Ok(false));
    let q = seal(&mut b, 0);
    assert_eq!(open(&mut a, t(0), &q), Ok(false));
    assert_eq!(b.open(t(0), 1, false, &mut [0; 28]).unwrap_err(), OpenError::Forged);
}

#[test]
fn packet_numbers_never_repeat() {
    let (mut a, _) = pair();
    seal(&mut a, 5);
    let mut packet = [0u8; 64];
    assert_eq!(a.seal(5, &mut packet), Err(SealError::PacketNumber));
    assert_eq!(a.seal(4, &mut packet), Err(SealError::PacketNumber));
    assert_eq!(a.seal(u64::MAX, &mut packet), Err(SealError::PacketNumber));
    assert_eq!(a.seal(6, &mut packet[..28]), Err(SealError::TooShort));
    a.on_acked(5);
    assert!(a.update());
    assert_eq!(a.seal(5, &mut packet), Err(SealError::PacketNumber));
    assert_eq!(a.seal(6, &mut packet), Ok(()));
}

#[test]
fn update_by_one_side() {
    let (mut a, mut b) = pair();
    let (p0, q0) = (seal(&mut a, 0), seal(&mut b, 0));
    open(&mut b, t(0), &p0).unwrap();
    open(&mut a, t(0), &q0).unwrap();
    let late = seal(&mut a, 1);
    assert!(!a.update(), "nothing was acknowledged");
    a.on_acked(0);
    assert!(a.update());
    assert!(!a.update(), "the last update is not acknowledged");
    let p2 = seal(&mut a, 2);
    assert_ne!(p2.phase, p0.phase);
    assert_eq!(open(&mut b, t(10), &p2), Ok(true));
    assert_eq!(b.key_phase(), a.key_phase());
    // Under way during the update: still opened, for three probe timeouts.
    assert_eq!(open(&mut b, t(309), &late), Ok(false));
    assert_eq!(open(&mut b, t(310), &late), Err(OpenError::Forged));
    // The peer's old packets are opened until it has followed.
    let q1 = seal(&mut b, 1);
    assert_eq!(open(&mut a, t(5000), &q0), Ok(false));
    assert_eq!(open(&mut a, t(5000), &q1), Ok(false));
    assert_eq!(open(&mut a, t(5300), &q0), Err(OpenError::Forged));
    assert_eq!((a.updates(), b.updates()), (1, 1));
    // And on to the next one.
    a.on_acked(2);
    assert!(a.update());
    let p3 = seal(&mut a, 3);
    assert_eq!(open(&mut b, t(6000), &p3), Ok(true));
}

#[test]
fn simultaneous_update() {
    let (mut a, mut b) = pair();
    for pn in 0..3 {
        let (p, q) = (seal(&mut a, pn), seal(&mut b, pn));
        open(&mut b, t(0), &p).unwrap();
        open(&mut a, t(0), &q).unwrap();
    }
    let (late_a, late_b) = (seal(&mut a, 3), seal(&mut b, 3));
    a.on_acked(2);
    b.on_acked(2);
    assert!(a.update() && b.update());
    let (p, q) = (seal(&mut a, 4), seal(&mut b, 4));
    assert_eq!(open(&mut b, t(1), &p), Ok(false));
    assert_eq!(open(&mut a, t(1), &late_b), Ok(false));
    assert_eq!(open(&mut a, t(1), &q), Ok(false));
    assert_eq!(open(&mut b, t(1), &late_a), Ok(false));
    assert_eq!((a.updates(), b.updates()), (1, 1));
    assert_eq!(a.key_phase(), b.key_phase());
}

#[test]
fn updates_by_count_and_stays_in_step() {
    let (mut a, mut b) = pair();
    a.set_update_after(10);
    b.set_update_after(7);
    for pn in 0..500 {
        let now = t(pn * 200);
        let p = seal(&mut a, pn);
        open(&mut b, now, &p).unwrap();
        b.expire(now);
        let q = seal(&mut b, pn);
        open(&mut a, now, &q).unwrap();
        a.on_acked(pn);
        b.on_acked(pn.saturating_sub(1));
    }
    assert!(a.updates() > 30, "{}", a.updates());
    assert_eq!(a.updates(), b.updates());
}

#[test]
fn old_key_after_new_one_is_an_error() {
    let (mut a, mut b) = pair();
    let (p0, q0) = (seal(&mut a, 0), seal(&mut b, 0));
    open(&mut b, t(0), &p0).unwrap();
    open(&mut a, t(0), &q0).unwrap();
    let wrong = seal_raw(&a, 2);
    a.on_acked(0);
    a.update();
    let p1 = seal(&mut a, 1);
    assert_eq!(open(&mut b, t(1), &p1), Ok(true));
    assert_eq!(open(&mut b, t(2), &wrong), Err(OpenError::Misbehaved(PeerMisbehaved::KeyUpdate)));
}

#[test]
fn new_key_below_old_number_is_an_error() {
    let (mut a, mut b) = pair();
    let q0 = seal(&mut b, 0);
    open(&mut a, t(0), &q0).unwrap();
    let p0 = seal(&mut a, 0);
    open(&mut b, t(0), &p0).unwrap();
    let high = seal_raw(&a, 9);
    a.on_acked(0);
    a.update();
    open(&mut b, t(0), &high).unwrap();
    let low = seal(&mut a, 5);
    assert_eq!(open(&mut b, t(1), &low), Err(OpenError::Misbehaved(PeerMisbehaved::KeyUpdate)));
}

#[test]
fn two_updates_without_an_answer_are_an_error() {
    let (mut a, mut b) = pair();
    let (p0, q0) = (seal(&mut a, 0), seal(&mut b, 0));
    open(&mut b, t(0), &p0).unwrap();
    open(&mut a, t(0), &q0).unwrap();
    a.on_acked(0);
    assert!(a.update());
    let p1 = seal(&mut a, 1);
    assert_eq!(open(&mut b, t(1), &p1), Ok(true));
    a.advance(None);
    let p2 = seal(&mut a, 2);
    assert_eq!(open(&mut b, t(2), &p2), Err(OpenError::Misbehaved(PeerMisbehaved::KeyUpdate)));
}

#[test]
fn forged_phase_changes_nothing() {
    let (mut a, mut b) = pair();
    let (p0, q0) = (seal(&mut a, 0), seal(&mut b, 0));
    open(&mut b, t(0), &p0).unwrap();
    open(&mut a, t(0), &q0).unwrap();
    for pn in 1..100 {
        let forged = Sealed { pn, phase: true, bytes: vec![0x41; 60] };
        assert_eq!(open(&mut b, t(1), &forged), Err(OpenError::Forged));
    }
    assert_eq!((b.updates(), b.key_phase(), b.failed_opens()), (0, false, 99));
    let p1 = seal(&mut a, 1);
    assert_eq!(open(&mut b, t(1), &p1), Ok(false));
    a.on_acked(0);
    a.update();
    let p2 = seal(&mut a, 2);
    assert_eq!(open(&mut b, t(1), &p2), Ok(true));
}

#[test]
fn confidentiality_limit_stops_sealing() {
    let (mut a, _) = pair();
    seal(&mut a, 0);
    a.sealed = a.local.confidentiality_limit();
    assert_eq!(a.seal(1, &mut [0; 64]), Err(SealError::Exhausted));
    a.set_update_after(u64::MAX);
    assert!(a.update_after <= 1 << 22, "updates well before the limit");
}

#[test]
fn integrity_limit_ends_the_connection() {
    let (mut a, mut b) = pair();
    let mut bad = seal(&mut a, 0);
    bad.bytes[20] ^= 1;
    b.failed = b.remote.integrity_limit();
    assert_eq!(
        open(&mut b, t(0), &bad),
        Err(OpenError::Misbehaved(PeerMisbehaved::IntegrityLimit))
    );
}

/// The heap and inline bytes of an idle connection's keys: two packet keys and the secrets.
#[test]
fn memory_of_an_idle_connection() {
    let key = size_of::<ring::aead::LessSafeKey>() + 12 + 2 * 8 + 4;
    let total = size_of::<DataKeys>() + 2 * key + size_of::<Secrets>();
    println!(
        "DataKeys {} + 2 × {key} + {} = {total} bytes",
        size_of::<DataKeys>(),
        size_of::<Secrets>()
    );
    assert!(size_of::<DataKeys>() <= 192, "{}", size_of::<DataKeys>());
    assert!(total <= 1664, "{total}");
    let (a, _) = pair();
    assert!(a.next.is_none() && a.previous.is_none());
}
