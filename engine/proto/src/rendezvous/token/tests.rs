use super::*;
use proptest::prelude::*;

const SECRET: &[u8; 32] = b"0123456789abcdef0123456789abcdef";
const NOW: u64 = 1_700_000_000;

fn ring() -> KeyRing {
    let mut keys = KeyRing::new();
    keys.add("k1", SECRET).unwrap();
    keys
}

fn grant(clients: &str) -> Grant {
    Grant {
        app: AppId::new("chess").unwrap(),
        clients: ClientPattern::new(clients).unwrap(),
        roles: RoleSet::ALL,
        expires_s: NOW + 60,
    }
}

/// The token of `docs/pairing.md`.
#[test]
fn the_vector_of_the_document() {
    let grant = Grant {
        app: AppId::new("chess").unwrap(),
        clients: ClientPattern::new("alice").unwrap(),
        roles: RoleSet::only(PairingRole::Controller),
        expires_s: 2_000_000_000,
    };
    let token = ring().mint("k1", &grant).unwrap();
    let expected = "tk1.k1.lKVjaGVzc6VhbGljZQHOdzWUAA.\
                    MAC";
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/pairing.md");
    let document = std::fs::read_to_string(document).unwrap();
    assert!(token.as_str().starts_with(expected.trim_end_matches("MAC")), "{}", token.as_str());
    assert!(document.contains(token.as_str()), "the document has {}", token.as_str());
}

#[test]
fn a_token_says_what_it_was_minted_for() {
    let keys = ring();
    let token = keys.mint("k1", &grant("player-*")).unwrap();
    assert!(token.as_str().len() < 120, "{}", token.as_str());
    assert_eq!(keys.verify(token.as_str(), NOW), Ok(grant("player-*")));
    assert_eq!(dangerous_inspect(token.as_str()), Ok(("k1".to_owned(), grant("player-*"))));
    assert_eq!(format!("{token:?}"), "AccessToken", "a token is not shown");
}

#[test]
fn it_expires_to_the_second() {
    let keys = ring();
    let token = keys.mint("k1", &grant("a")).unwrap();
    assert!(keys.verify(token.as_str(), NOW + 59).is_ok());
    assert_eq!(keys.verify(token.as_str(), NOW + 60), Err(TokenError::Expired { ago_s: 0 }));
    let late = keys.verify(token.as_str(), NOW + 63).unwrap_err();
    assert_eq!(late.to_string(), "token has expired 3 s ago");
}

#[test]
fn keys_are_replaced_one_after_the_other() {
    let mut keys = ring();
    let old = keys.mint("k1", &grant("a")).unwrap();
    keys.add("k2", &[7; 32]).unwrap();
    let new = keys.mint("k2", &grant("a")).unwrap();
    assert!(keys.verify(old.as_str(), NOW).is_ok() && keys.verify(new.as_str(), NOW).is_ok());
    assert_eq!(keys.ids().collect::<Vec<_>>(), ["k1", "k2"]);
    let mut later = KeyRing::new();
    later.add("k2", &[7; 32]).unwrap();
    assert_eq!(later.verify(old.as_str(), NOW), Err(TokenError::UnknownKey));
    assert!(later.verify(new.as_str(), NOW).is_ok());
    let mut other = KeyRing::new();
    other.add("k1", &[8; 32]).unwrap();
    assert_eq!(other.verify(old.as_str(), NOW), Err(TokenError::BadSignature));
}

#[test]
fn keys_are_checked() {
    let mut keys = ring();
    let why = |r: Result<(), TokenError>| r.unwrap_err().to_string();
    assert_eq!(why(keys.add("k1", SECRET)), "key name is there already");
    assert_eq!(why(keys.add("k2", &[0; 31])), "key secret must have at least 32 bytes");
    for name in ["", "a.b", "a b", &"k".repeat(33)] {
        assert!(why(keys.add(name, SECRET)).contains("name must be"), "{name}");
    }
    for n in 1..MAX_TOKEN_KEYS {
        keys.add(&format!("n{n}"), SECRET).unwrap();
    }
    assert_eq!(why(keys.add("more", SECRET)), "key is one too many (64)");
    assert!(matches!(keys.mint("none", &grant("a")), Err(TokenError::UnknownKey)));
    assert!(!format!("{keys:?}").contains("0123"), "secrets are not shown");
}

#[test]
fn patterns() {
    let matches = |pattern: &str, client: &str| {
        ClientPattern::new(pattern).unwrap().matches(&ClientId::new(client).unwrap())
    };
    assert!(matches("alice", "alice") && !matches("alice", "alice2") && !matches("alice", "alic"));
    assert!(matches("*", "anybody"));
    assert!(matches("p-*", "p-") && matches("p-*", "p-1") && !matches("p-*", "xp-1"));
    assert!(matches("*-eu", "a-eu") && !matches("*-eu", "a-eu-") && !matches("a*a", "a"));
    assert!(matches("a*b*c", "abc") && matches("a*b*c", "a1b2b3c") && !matches("a*b*c", "acb"));
    assert!(matches("**", "x") && matches("a*bb*b", "abbbb") && !matches("a*bb*b", "abb"));
    for bad in ["", "a b", "a/b", "*****", &"a".repeat(65)] {
        assert!(ClientPattern::new(bad).is_err(), "{bad}");
    }
    assert!(ClientPattern::new("a").unwrap().is_exact());
    assert!(!ClientPattern::new("a*").unwrap().is_exact());
}

#[test]
fn malformed_tokens_say_what_is_wrong() {
    let keys = ring();
    let good = keys.mint("k1", &grant("a")).unwrap();
    let parts: Vec<&str> = good.as_str().split('.').collect();
    let long = format!("tk1.k1.{}.x", "A".repeat(MAX_ACCESS_TOKEN));
    for (token, why) in [
        (String::new(), "it has no dots"),
        ("tk1".to_owned(), "it has no dots"),
        (format!("tk2.k1.{}.{}", parts[2], parts[3]), "it does not start with tk1"),
        (format!("tk1.{}.{}", parts[2], parts[3]), "it must have 4 parts"),
        (format!("{}.x", good.as_str()), "it must have 4 parts"),
        (format!("tk1.k/1.{}.{}", parts[2], parts[3]), "the name of its key is not one"),
        (format!("tk1.k1.{}.!", parts[2]), "it is not base64url"),
        (long, "it must have 1 to 512 characters"),
    ] {
        assert_eq!(keys.verify(&token, NOW), Err(TokenError::Malformed(why)), "{token}");
    }
}

#[test]
fn a_signed_payload_is_still_checked() {
    let sign = |payload: &[u8]| {
        let signed = format!("tk1.k1.{}", URL_SAFE_NO_PAD.encode(payload));
        let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), signed.as_bytes());
        ring().verify(&format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac)), NOW)
    };
    assert!(sign(&grant("a").encode()).is_ok());
    let spoil = |at: usize, byte: u8| {
        let mut payload = grant("a").encode();
        payload[at] = byte;
        sign(&payload).unwrap_err().to_string()
    };
    assert!(sign(&[]).unwrap_err().to_string().contains("payload"));
    assert!(spoil(0, 0x93).contains("payload"));
    assert!(spoil(1, 0xc0).contains("app"));
    assert!(spoil(2, b' ').contains("app"));
    assert!(spoil(8, b' ').contains("client pattern"));
    assert!(spoil(9, 0).contains("roles") && spoil(9, 4).contains("roles"));
    assert!(spoil(10, 0xff).contains("expiry"));
}

#[test]
fn access_tokens_are_text() {
    assert!(AccessToken::new("").is_err());
    assert!(AccessToken::new("a b").is_err());
    assert!(AccessToken::new(&"a".repeat(513)).is_err());
    let token = AccessToken::new("abc").unwrap();
    let text = credential(&token, &ClientId::new("x").unwrap(), PairingRole::Responder);
    assert_eq!(text, b"abc x responder");
}

proptest! {
    #[test]
    fn one_changed_character_spoils_a_token(at in any::<proptest::sample::Index>(), to in "[A-Za-z0-9_.-]") {
        let keys = ring();
        let token = keys.mint("k1", &grant("player-*")).unwrap();
        let at = at.index(token.as_str().len());
        let mut text = token.as_str().to_owned();
        text.replace_range(at..=at, &to);
        // The last character of a MAC has bits that base64 does not use, and must be zero.
        prop_assert_eq!(text == token.as_str(), keys.verify(&text, NOW).is_ok());
    }

    #[test]
    fn any_text_is_a_token_or_an_error(text in "\\PC{0,80}", tail in "[a-z.]{0,40}") {
        prop_assert!(ring().verify(&text, NOW).is_err());
        let text = format!("tk1.k1.{tail}");
        prop_assert!(ring().verify(&text, NOW).is_err());
        let _ = dangerous_inspect(&text);
    }

    #[test]
    fn a_pattern_of_pieces_matches_what_is_made_of_them(
        pieces in proptest::collection::vec("[ab]{0,3}", 1..5),
        between in proptest::collection::vec("[ab]{0,3}", 4),
    ) {
        let pattern = pieces.join("*");
        let mut client = pieces[0].clone();
        for (piece, filling) in pieces[1..].iter().zip(&between) {
            client.push_str(filling);
            client.push_str(piece);
        }
        prop_assume!(!pattern.is_empty() && !client.is_empty());
        let pattern = ClientPattern::new(&pattern).unwrap();
        prop_assert!(pattern.matches(&ClientId::new(&client).unwrap()), "{pattern} {client}");
    }
}
