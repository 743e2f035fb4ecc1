//! `trunkline token`: makes keys, mints tokens and says what is in them (`docs/pairing.md`).

use crate::exit::{Exit, Failure};
use crate::{hex, keygen, print};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::io::Read as _;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use trunkline::rendezvous::{
    AccessToken, AppId, ClientPattern, Grant, KeyRing, PairingRole, RoleSet, TokenError,
    dangerous_inspect,
};

/// Bytes of a secret that we make.
const SECRET: usize = 32;
/// Longest key file that is read.
const MAX_KEY_FILE: u64 = 4096;

pub const HELP: &str = "\
Examples:
  trunkline token key --out k1.key
  trunkline token mint --key k1=k1.key --app chess --client alice --role controller
  trunkline token mint --key k1=k1.key --app chess --client 'player-*' --ttl 30d --json
  trunkline token inspect tk1.k1.lKVj….KQDw --key k1=k1.key

A key file holds the secret as hexadecimal digits (at least 64), readable by its owner only. The
event source needs the same key under the same name. A token is as good as a password.

Exit codes: 0 done (inspect: and the token is good, if keys were given), 1 a file could not be
used, 2 usage, 3 the token is not good";

/// Options of `token`.
#[derive(Debug, Args)]
pub struct TokenArgs {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// The verbs of `token`.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Make a key.
    #[command(after_help = HELP)]
    Key(KeyArgs),
    /// Mint a token.
    #[command(after_help = HELP)]
    Mint(MintArgs),
    /// Say what is in a token, and whether it is good.
    #[command(after_help = HELP)]
    Inspect(InspectArgs),
}

/// Options of `token key`.
#[derive(Debug, Args)]
pub struct KeyArgs {
    /// File to write; an existing one is never replaced.
    #[arg(long, short = 'o', value_name = "FILE")]
    pub out: PathBuf,
    /// One JSON object on standard output.
    #[arg(long)]
    pub json: bool,
}

/// Options of `token mint`.
#[derive(Debug, Args)]
pub struct MintArgs {
    /// The key to sign with: its name, and the file with its secret.
    #[arg(long, value_name = "NAME=FILE")]
    pub key: KeyFile,
    /// The application.
    #[arg(long, value_name = "APP")]
    pub app: AppId,
    /// The client id; with `*` for any characters, a pattern of client ids.
    #[arg(long, value_name = "ID", value_parser = pattern)]
    pub client: ClientPattern,
    /// Role that it allows (may be repeated) [default: both].
    #[arg(long, value_name = "ROLE")]
    pub role: Vec<PairingRole>,
    /// How long it is good for: 90s, 15m, 12h, 30d.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = lifetime)]
    pub ttl: Duration,
    /// One JSON object on standard output.
    #[arg(long)]
    pub json: bool,
}

/// Options of `token inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The token; `-` reads it from standard input.
    #[arg(value_name = "TOKEN")]
    pub token: String,
    /// Key to check it with (may be repeated). Without any, nothing that is shown is proven.
    #[arg(long, value_name = "NAME=FILE")]
    pub key: Vec<KeyFile>,
    /// One JSON object on standard output.
    #[arg(long)]
    pub json: bool,
}

/// A key's name and the file with its secret.
#[derive(Clone, Debug)]
pub struct KeyFile {
    /// The name.
    pub id: String,
    /// The file.
    pub path: PathBuf,
}

impl FromStr for KeyFile {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let (id, path) = s.split_once('=').ok_or("expected NAME=FILE, such as k1=k1.key")?;
        if id.is_empty() || path.is_empty() {
            return Err("expected NAME=FILE, such as k1=k1.key".to_owned());
        }
        Ok(Self { id: id.to_owned(), path: path.into() })
    }
}

fn pattern(text: &str) -> Result<ClientPattern, String> {
    ClientPattern::new(text).map_err(|e| e.to_string())
}

/// A number of seconds, minutes, hours or days, from one second to ten years.
pub fn lifetime(text: &str) -> Result<Duration, String> {
    let expected = || "expected a time such as 90s, 15m, 12h or 30d".to_owned();
    let (number, unit) =
        text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(expected)?;
    let number: u64 = number.parse().map_err(|_| expected())?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(expected()),
    };
    let seconds = number.saturating_mul(unit);
    if (1..=3650 * 86_400).contains(&seconds) {
        Ok(Duration::from_secs(seconds))
    } else {
        Err("must lie between 1s and 3650d".to_owned())
    }
}

/// Reads a key file into `keys`.
pub fn add_key(keys: &mut KeyRing, key: &KeyFile) -> Result<(), Failure> {
    let unusable = |why: String| Failure::local(format!("key {}: {why}", key.path.display()));
    let mut text = String::new();
    std::fs::File::open(&key.path)
        .and_then(|file| file.take(MAX_KEY_FILE).read_to_string(&mut text))
        .map_err(|e| unusable(e.to_string()))?;
    let secret =
        hex::decode(text.trim()).ok_or_else(|| unusable("is not hexadecimal".to_owned()))?;
    keys.add(&key.id, &secret).map_err(|e| unusable(e.to_string()))
}

pub fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// The subcommand.
pub fn run(args: &TokenArgs) -> Result<Exit, Failure> {
    match &args.verb {
        Verb::Key(args) => make_key(args),
        Verb::Mint(args) => mint(args),
        Verb::Inspect(args) => inspect(args),
    }
}

fn make_key(args: &KeyArgs) -> Result<Exit, Failure> {
    let mut secret = [0; SECRET];
    keygen::random(&mut secret)?;
    keygen::write(&args.out, &format!("{}\n", hex::encode(&secret)), 0o600)?;
    let file = args.out.display().to_string();
    print::result(args.json, &json!({"file": file}), &format!("wrote {file}"))?;
    Ok(Exit::Done)
}

/// A token signed with the key of a file.
pub fn sign(key: &KeyFile, grant: &Grant) -> Result<AccessToken, Failure> {
    let mut keys = KeyRing::new();
    add_key(&mut keys, key)?;
    keys.mint(&key.id, grant).map_err(|e| Failure::local(format!("no token: {e}")))
}

fn mint(args: &MintArgs) -> Result<Exit, Failure> {
    let grant = Grant {
        app: args.app.clone(),
        clients: args.client.clone(),
        roles: RoleSet::of(&args.role).unwrap_or(RoleSet::ALL),
        expires_s: unix_s() + args.ttl.as_secs(),
    };
    let token = sign(&args.key, &grant)?;
    let mut object = describe(&args.key.id, &grant);
    object["token"] = json!(token.as_str());
    print::result(args.json, &object, token.as_str())?;
    Ok(Exit::Done)
}

fn describe(key: &str, grant: &Grant) -> Value {
    json!({
        "key": key, "app": grant.app.as_str(), "client": grant.clients.as_str(),
        "roles": grant.roles.names(), "expires": grant.expires_s,
    })
}

fn inspect(args: &InspectArgs) -> Result<Exit, Failure> {
    let mut token = args.token.clone();
    if token == "-" {
        token.clear();
        std::io::stdin()
            .take(MAX_KEY_FILE)
            .read_to_string(&mut token)
            .map_err(|e| Failure::local(format!("cannot read standard input: {e}")))?;
    }
    let token = token.trim();
    let mut keys = KeyRing::new();
    for key in &args.key {
        add_key(&mut keys, key)?;
    }
    let bad = |e: TokenError| Failure::new(Exit::Trust, e.to_string());
    let (key, grant) = dangerous_inspect(token).map_err(bad)?;
    let now = unix_s();
    let verdict = (!args.key.is_empty()).then(|| keys.verify(token, now).map(drop));
    let words = match &verdict {
        None => "not checked: no key was given".to_owned(),
        Some(Ok(())) => "good".to_owned(),
        Some(Err(e)) => e.to_string(),
    };
    let mut object = describe(&key, &grant);
    object["good"] = json!(verdict.as_ref().map(Result::is_ok));
    object["verdict"] = json!(words);
    let left = grant.expires_s.saturating_sub(now);
    let text = format!(
        "key      {key}\napp      {}\nclient   {}\nroles    {}\nexpires  {} ({})\nverdict  {words}",
        grant.app,
        grant.clients,
        grant.roles.names().join(", "),
        grant.expires_s,
        if left > 0 { format!("in {left} s") } else { "expired".to_owned() },
    );
    print::result(args.json, &object, &text)?;
    Ok(if matches!(verdict, Some(Err(_))) { Exit::Trust } else { Exit::Done })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes() {
        assert_eq!(lifetime("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(lifetime("15m"), Ok(Duration::from_secs(900)));
        assert_eq!(lifetime("12h"), Ok(Duration::from_secs(43_200)));
        assert_eq!(lifetime("30d"), Ok(Duration::from_secs(2_592_000)));
        for bad in ["", "s", "5", "5x", "-1s", "0s", "3651d", "99999999999999999999d", "1ä"] {
            assert!(lifetime(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn key_files_are_named() {
        let key: KeyFile = "k1=/etc/k=1.key".parse().unwrap();
        assert_eq!((key.id.as_str(), key.path.to_str()), ("k1", Some("/etc/k=1.key")));
        for bad in ["k1", "=x", "k1="] {
            assert!(bad.parse::<KeyFile>().is_err(), "{bad}");
        }
    }
}
