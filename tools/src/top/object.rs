//! The object of `--json`.

use super::Sort;
use super::rates::{ConnRates, ShardRates, Watched};
use serde_json::{Map, Value, json};
use trunkline::stats::file::Health;

/// One engine at one moment.
pub fn of(watched: &Watched, sort: Sort) -> Value {
    let info = watched.file.info();
    let shards: Vec<Value> = watched.shards().iter().map(|s| shard(watched, s)).collect();
    let connections: Vec<Value> = watched.connections(sort).iter().map(connection).collect();
    json!({
        "event": "sample",
        "file": watched.path.display().to_string(),
        "pid": info.pid,
        "engine": info.engine,
        "started_unix_s": info.wall_ns as f64 / 1e9,
        "state": watched.health().name(),
        "silent_s": silence(watched.health()),
        "shards": shards,
        "connections": connections,
    })
}

fn silence(health: &Health) -> Option<f64> {
    match health {
        Health::NotAnswering(since) => Some(since.as_secs_f64()),
        _ => None,
    }
}

fn shard(watched: &Watched, shard: &ShardRates<'_>) -> Value {
    let sample = shard.sample;
    let names = watched.file.fields().iter().map(|f| f.name.clone());
    let fields: Map<String, Value> =
        names.zip(sample.values.iter().map(|v| Value::from(*v))).collect();
    let failure = match &sample.health {
        Health::Failed(why) => Some(why),
        _ => None,
    };
    json!({
        "shard": sample.shard,
        "state": sample.health.name(),
        "silent_s": silence(&sample.health),
        "failure": failure,
        "driver": sample.driver,
        "driven": sample.driven,
        "asleep": sample.asleep,
        "torn": sample.torn,
        "over_s": shard.seconds,
        "load": shard.load(),
        "turns_per_s": shard.rate("turns"),
        "packets_received_per_s": shard.rate("datagrams_received"),
        "packets_sent_per_s": shard.rate("datagrams_sent"),
        "bits_received_per_s": shard.rate("bytes_received") * 8.0,
        "bits_sent_per_s": shard.rate("bytes_sent") * 8.0,
        "retransmits_per_s": shard.rate("retransmits"),
        "packets_lost_per_s": shard.rate("packets_lost"),
        "fields": fields,
    })
}

fn connection(conn: &ConnRates<'_>) -> Value {
    let fields: Map<String, Value> = conn
        .row
        .fields()
        .filter(|(name, _)| !matches!(*name, "address_high" | "address_low" | "port" | "peer"))
        .map(|(name, value)| (name.to_owned(), Value::from(value)))
        .collect();
    json!({
        "shard": conn.shard,
        "remote": conn.row.remote().map(|r| r.to_string()),
        "peer": conn.row.peer(),
        "state": conn.row.status(),
        "bits_sent_per_s": conn.sent * 8.0,
        "bits_received_per_s": conn.received * 8.0,
        "fields": fields,
    })
}
