//! Credentials: what is accepted, until when, from whom, and everything that is not.

use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;
use trunkline_proto::crypto::{
    Credential, CredentialError, CredentialIssuer, CredentialVerifier, Grant, Rng,
};
use trunkline_proto::error::ApiError;
use trunkline_proto::ids::PeerId;
use trunkline_proto::limits::{MAX_CREDENTIAL, MAX_CREDENTIAL_CLAIMS, MAX_REASON_TEXT};
use trunkline_proto::time::Duration;

const SECRET: [u8; 32] = [7; 32];
const NOW: u64 = 1_700_000_000;
const HOUR: u64 = 3_600;

/// PKCS#8 (RFC 8410 §7) of the Ed25519 key with this seed.
fn pkcs8(seed: [u8; 32]) -> Vec<u8> {
    let mut der = vec![0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    der.extend(seed);
    der
}

fn hmac_issuer() -> CredentialIssuer {
    CredentialIssuer::with_secret("game", 1, &SECRET).expect("an issuer")
}

fn ed25519_issuer() -> CredentialIssuer {
    CredentialIssuer::with_ed25519("game", 2, &pkcs8([9; 32])).expect("an issuer")
}

/// Knows the keys of both.
fn verifier() -> CredentialVerifier {
    let mut verifier = CredentialVerifier::new("game").expect("a verifier");
    verifier.add_secret(1, &SECRET).expect("a secret");
    verifier.add_public_key(2, ed25519_issuer().public_key().expect("a public key"));
    verifier
}

fn grant(claims: &[u8]) -> Grant<'_> {
    Grant { issued_s: NOW, expires_s: NOW + HOUR, peer: None, claims }
}

#[test]
fn what_was_issued_is_accepted_with_all_that_it_says() {
    assert_eq!(hmac_issuer().public_key(), None);
    for (issuer, key_id) in [(hmac_issuer(), 1), (ed25519_issuer(), 2)] {
        for len in [0, 1, 32, 1_000, MAX_CREDENTIAL_CLAIMS] {
            for peer in [None, Some(PeerId([5; 32]))] {
                let claims: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
                let issued = issuer.issue(&Grant { peer, ..grant(&claims) }).expect("issued");
                assert!(issued.len() <= MAX_CREDENTIAL, "{} bytes", issued.len());
                let (issued_s, expires_s) = (NOW, NOW + HOUR);
                let expected = Credential { key_id, issued_s, expires_s, peer, claims: &claims };
                assert_eq!(verifier().verify(&issued, NOW + 1, peer), Ok(expected));
            }
        }
    }
}

#[test]
fn a_credential_holds_for_its_time() {
    let issued = hmac_issuer().issue(&grant(b"x")).expect("issued");
    let at = |now_s| verifier().verify(&issued, now_s, None).map(|c| c.expires_in(now_s));
    assert_eq!(at(NOW), Ok(Duration::from_secs(HOUR)));
    assert_eq!(at(NOW + HOUR - 1), Ok(Duration::from_secs(1)));
    assert_eq!(at(NOW + HOUR), Err(CredentialError::Expired { by_s: 0 }));
    assert_eq!(at(NOW + HOUR + 5), Err(CredentialError::Expired { by_s: 5 }));
    assert_eq!(at(u64::MAX), Err(CredentialError::Expired { by_s: u64::MAX - NOW - HOUR }));
    // The issuer's clock may be a little ahead of ours.
    assert!(at(NOW - 30).is_ok());
    assert_eq!(at(NOW - 31), Err(CredentialError::NotYetValid));
    assert_eq!(at(0), Err(CredentialError::NotYetValid));
    // For ever, nearly: no timer is as long.
    let forever = Grant { expires_s: u64::MAX, ..grant(b"") };
    let issued = hmac_issuer().issue(&forever).expect("issued");
    let left = verifier().verify(&issued, NOW, None).expect("valid").expires_in(NOW);
    assert!(left >= Duration::from_secs(HOUR * 24 * 365 * 500));
    assert_eq!(
        Credential { key_id: 1, issued_s: 0, expires_s: 5, peer: None, claims: b"" }.expires_in(9),
        Duration::ZERO
    );
}

#[test]
fn a_bound_credential_serves_its_peer_only() {
    let (peer, thief) = (PeerId([1; 32]), PeerId([2; 32]));
    for issuer in [hmac_issuer(), ed25519_issuer()] {
        let issued = issuer.issue(&Grant { peer: Some(peer), ..grant(b"x") }).expect("issued");
        assert_eq!(verifier().verify(&issued, NOW, Some(peer)).expect("valid").peer, Some(peer));
        for other in [Some(thief), None] {
            let refused = verifier().verify(&issued, NOW, other);
            assert_eq!(refused, Err(CredentialError::WrongPeer));
        }
        // One that is not bound serves whoever has it, certificate or not.
        let free = issuer.issue(&grant(b"x")).expect("issued");
        assert!(verifier().verify(&free, NOW, Some(thief)).is_ok());
    }
}

#[test]
fn an_audience_does_not_accept_the_credentials_of_another() {
    for audience in ["", "gam", "games", "GAME", &"g".repeat(255)] {
        for issuer in [
            CredentialIssuer::with_secret(audience, 1, &SECRET),
            CredentialIssuer::with_ed25519(audience, 2, &pkcs8([9; 32])),
        ] {
            let issued = issuer.expect("an issuer").issue(&grant(b"e")).expect("issued");
            let refused = verifier().verify(&issued, NOW, None);
            assert_eq!(refused, Err(CredentialError::Signature), "{audience:?}");
        }
    }
}

#[test]
fn keys_are_brought_in_and_taken_away() {
    let old = hmac_issuer().issue(&grant(b"old")).expect("issued");
    let next = CredentialIssuer::with_secret("game", 3, &[8; 40]).expect("an issuer");
    let new = next.issue(&grant(b"new")).expect("issued");
    let mut verifier = verifier();
    assert_eq!(verifier.verify(&new, NOW, None), Err(CredentialError::UnknownKey(3)));
    verifier.add_secret(3, &[8; 40]).expect("a secret");
    assert_eq!(verifier.verify(&new, NOW, None).expect("valid").claims, b"new");
    assert_eq!(verifier.verify(&old, NOW, None).expect("valid").claims, b"old");
    verifier.remove_key(1);
    assert_eq!(verifier.verify(&old, NOW, None), Err(CredentialError::UnknownKey(1)));
    // A number stands for one key at a time.
    verifier.add_secret(3, &[9; 40]).expect("a secret");
    assert_eq!(verifier.verify(&new, NOW, None), Err(CredentialError::Signature));
    let empty = CredentialVerifier::new("game").expect("a verifier");
    assert_eq!(empty.verify(&old, NOW, None), Err(CredentialError::UnknownKey(1)));
}

/// Whoever knows the public key could use it as a secret, if a credential chose its algorithm.
#[test]
fn a_credential_does_not_choose_its_algorithm() {
    let public = ed25519_issuer().public_key().expect("a public key");
    let forger = CredentialIssuer::with_secret("game", 2, &public).expect("an issuer");
    let forged = forger.issue(&grant(b"admin")).expect("issued");
    assert_eq!(verifier().verify(&forged, NOW, None), Err(CredentialError::Signature));
    let forger = CredentialIssuer::with_ed25519("game", 1, &pkcs8([9; 32])).expect("an issuer");
    let forged = forger.issue(&grant(b"admin")).expect("issued");
    assert_eq!(verifier().verify(&forged, NOW, None), Err(CredentialError::Signature));
}

#[test]
fn every_changed_bit_and_every_cut_is_refused() {
    for issuer in [hmac_issuer(), ed25519_issuer()] {
        let peer = Some(PeerId([3; 32]));
        let issued = issuer.issue(&Grant { peer, ..grant(b"claims") }).expect("issued");
        for bit in 0..issued.len() * 8 {
            let mut changed = issued.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let refused = verifier().verify(&changed, NOW, peer);
            assert!(refused.is_err(), "bit {bit} is not signed");
        }
        for len in 0..issued.len() {
            assert!(verifier().verify(&issued[..len], NOW, peer).is_err(), "cut to {len} bytes");
        }
        for tail in [vec![0], vec![0; 32], issued.clone()] {
            let longer = [issued.clone(), tail].concat();
            assert_eq!(verifier().verify(&longer, NOW, peer), Err(CredentialError::Signature));
        }
    }
    assert_eq!(verifier().verify(b"", NOW, None), Err(CredentialError::Missing));
    let long = vec![1; MAX_CREDENTIAL + 1];
    assert_eq!(verifier().verify(&long, NOW, None), Err(CredentialError::Malformed("too long")));
}

/// The time and the peer are looked at only in what is known to be the issuer's: a forger learns
/// nothing of our clock or of who is expected.
#[test]
fn nothing_is_believed_before_the_signature() {
    let forger = CredentialIssuer::with_secret("game", 1, &[1; 32]).expect("an issuer");
    for grant in [
        Grant { issued_s: 1, expires_s: 2, peer: None, claims: b"" },
        Grant { issued_s: NOW * 2, expires_s: NOW * 3, peer: None, claims: b"" },
        Grant { peer: Some(PeerId([1; 32])), ..grant(b"") },
    ] {
        let forged = forger.issue(&grant).expect("issued");
        assert_eq!(verifier().verify(&forged, NOW, None), Err(CredentialError::Signature));
    }
}

#[test]
fn what_cannot_be_issued_is_named() {
    let field = |e: ApiError| match e {
        ApiError::InvalidArgument { field, .. } => field,
        other => panic!("{other}"),
    };
    let long = "x".repeat(256);
    assert_eq!(field(CredentialIssuer::with_secret("a", 1, &[0; 31]).unwrap_err()), "secret");
    assert_eq!(field(CredentialIssuer::with_secret(&long, 1, &SECRET).unwrap_err()), "audience");
    assert_eq!(field(CredentialVerifier::new(&long).unwrap_err()), "audience");
    assert_eq!(field(verifier().add_secret(1, &[0; 31]).unwrap_err()), "secret");
    for garbage in [&b""[..], b"not a key", &pkcs8([0; 32])[..40]] {
        let refused = CredentialIssuer::with_ed25519("a", 1, garbage);
        assert!(matches!(refused, Err(ApiError::Security(_))), "{refused:?}");
    }
    let issue = |grant: Grant<'_>| hmac_issuer().issue(&grant).unwrap_err();
    let long = vec![0; MAX_CREDENTIAL_CLAIMS + 1];
    assert_eq!(field(issue(grant(&long))), "claims");
    assert_eq!(field(issue(Grant { expires_s: NOW, ..grant(b"") })), "expires_s");
    // Keys do not show in what is logged.
    let shown = format!("{:?} {:?} {:?}", hmac_issuer(), ed25519_issuer(), verifier());
    assert!(!shown.contains('7') && shown.contains("key_id"), "{shown}");
}

#[test]
fn errors_are_fit_to_be_told() {
    for error in [
        CredentialError::Missing,
        CredentialError::Malformed("cut short"),
        CredentialError::UnknownKey(u32::MAX),
        CredentialError::Signature,
        CredentialError::NotYetValid,
        CredentialError::Expired { by_s: u64::MAX },
        CredentialError::WrongPeer,
    ] {
        let text = error.to_string();
        assert!(text.contains("credential") && text.len() <= MAX_REASON_TEXT, "{text}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(verifier().verify(&bytes, NOW, None).is_err());
    }

    /// A right header, and anything behind it.
    #[test]
    fn any_bytes_behind_a_header_are_refused(
        algorithm in 0u8..4, flags in 0u8..4, key in 0u32..4, seed in any::<[u8; 32]>(),
        len in 0usize..300,
    ) {
        let mut bytes = vec![1, algorithm, flags];
        bytes.extend(key.to_be_bytes());
        bytes.extend(NOW.to_be_bytes());
        bytes.extend((NOW + HOUR).to_be_bytes());
        let mut rest = vec![0; len];
        Rng::from_seed(seed).fill(&mut rest);
        bytes.extend(rest);
        prop_assert!(verifier().verify(&bytes, NOW, None).is_err());
    }
}

/// The vectors of `docs/credentials.md`: issued here byte for byte, and accepted.
#[test]
fn the_vectors_of_the_document_hold() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/credentials.md");
    let document = std::fs::read_to_string(path).expect("docs/credentials.md");
    let unhex = |text: &str| -> Vec<u8> {
        let digits = text.as_bytes().chunks(2);
        digits
            .map(|d| u8::from_str_radix(std::str::from_utf8(d).expect("digits"), 16).expect("hex"))
            .collect()
    };
    let mut checked = 0;
    for block in document.split("```vector\n").skip(1) {
        let block = block.split("```").next().expect("an end");
        let v: BTreeMap<&str, &str> = block.lines().filter_map(|l| l.split_once(": ")).collect();
        let audience = v["audience"];
        let key_id = v["key id"].parse().expect("a number");
        let mut verifier = CredentialVerifier::new(audience).expect("a verifier");
        let issuer = if let Some(secret) = v.get("secret") {
            verifier.add_secret(key_id, &unhex(secret)).expect("a secret");
            CredentialIssuer::with_secret(audience, key_id, &unhex(secret))
        } else {
            let seed = unhex(v["private key"]).try_into().expect("32 bytes");
            verifier.add_public_key(key_id, unhex(v["public key"]).try_into().expect("32 bytes"));
            CredentialIssuer::with_ed25519(audience, key_id, &pkcs8(seed))
        };
        let claims = unhex(v.get("claims").copied().unwrap_or_default());
        let peer = v.get("peer").map(|p| p.parse().expect("a peer"));
        let grant = Grant {
            issued_s: v["issued"].parse().expect("a number"),
            expires_s: v["expires"].parse().expect("a number"),
            peer,
            claims: &claims,
        };
        let made = issuer.expect("an issuer").issue(&grant).expect("issued");
        assert_eq!(made, unhex(v["credential"]), "{block}");
        let found = verifier.verify(&made, grant.issued_s, peer).expect("accepted");
        assert_eq!((found.claims, found.peer, found.key_id), (&claims[..], peer, key_id));
        checked += 1;
    }
    assert_eq!(checked, 2);
}
