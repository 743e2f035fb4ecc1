//! A sender that says whatever a test wants.

use std::collections::HashMap;
use std::sync::mpsc::{self, Sender};
use std::time::Duration;
use trunkline::{
    Channel, ChannelEnd, ChannelOptions, CloseReason, Conn, ConnectConfig, Context, Engine,
    EngineConfig, Handler, Identity, PeerId, Status, Trust,
};

/// A channel to open, what to say on it, and whether to end it.
#[derive(Clone)]
pub struct Say {
    pub name: String,
    pub bytes: Vec<u8>,
    pub finish: bool,
    pub options: ChannelOptions,
}

impl Say {
    /// A file as the protocol wants it, under any name.
    pub fn file(name: &str, content: &[u8]) -> Self {
        let mut bytes = header(content.len() as u64);
        bytes.extend_from_slice(content);
        bytes.extend_from_slice(ring::digest::digest(&ring::digest::SHA256, content).as_ref());
        Self::raw(&format!("file://{name}"), bytes)
    }

    /// Any bytes on any channel.
    pub fn raw(name: &str, bytes: Vec<u8>) -> Self {
        let name = name.to_owned();
        Self { name, bytes, finish: true, options: ChannelOptions::default() }
    }
}

pub fn header(size: u64) -> Vec<u8> {
    let mut bytes = vec![1, 0, 0o1, 0o244];
    bytes.extend_from_slice(&size.to_be_bytes());
    bytes
}

/// What came of one channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Code of the answer and its text.
    Answer(u8, String),
    /// Code of a declined channel.
    Declined(u32),
    /// Anything else.
    Ended(String),
}

struct Rogue {
    connect: ConnectConfig,
    say: Vec<Say>,
    channels: HashMap<Channel, usize>,
    answers: Vec<Vec<u8>>,
    heard: Sender<(usize, Heard)>,
}

/// Opens all the channels on one connection and gives what was heard on each.
pub fn say(
    address: &str,
    fingerprint: &str,
    identity: Option<Identity>,
    say: Vec<Say>,
) -> Vec<Heard> {
    let pin: PeerId = fingerprint.parse().unwrap();
    let connect = ConnectConfig {
        identity,
        ..ConnectConfig::new(address.parse().unwrap(), Trust::Pins(vec![pin]))
    };
    let count = say.len();
    let (heard, results) = mpsc::channel();
    let answers = vec![Vec::new(); count];
    let mut rogue = Some(Rogue { connect, say, channels: HashMap::new(), answers, heard });
    let engine = Engine::start(EngineConfig::default(), |_| rogue.take().unwrap()).unwrap();
    let mut out: Vec<Option<Heard>> = vec![None; count];
    while out.iter().any(Option::is_none) {
        let (index, heard) = results
            .recv_timeout(Duration::from_secs(30))
            .unwrap_or_else(|_| panic!("not answered; heard so far: {out:?}"));
        out[index].get_or_insert(heard);
    }
    engine.shutdown(Duration::from_millis(200));
    out.into_iter().flatten().collect()
}

impl Handler for Rogue {
    type Command = ();

    fn on_start(&mut self, cx: &mut Context<'_>) {
        cx.connect(&self.connect).unwrap();
    }

    fn on_status(
        &mut self,
        cx: &mut Context<'_>,
        conn: Conn,
        _old: Status,
        new: Status,
        reason: Option<&CloseReason>,
    ) {
        if new == Status::Connected {
            for (index, say) in self.say.iter().enumerate() {
                let channel = cx.open_channel(conn, &say.name, &say.options).unwrap();
                self.channels.insert(channel, index);
                if !say.bytes.is_empty() {
                    cx.send(channel, &say.bytes).unwrap();
                }
                if say.finish {
                    cx.finish(channel).unwrap();
                }
            }
        } else if let Some(reason) = reason {
            for index in 0..self.say.len() {
                let _ = self.heard.send((index, Heard::Ended(reason.to_string())));
            }
        }
    }

    fn on_data(&mut self, _cx: &mut Context<'_>, channel: Channel, bytes: &[u8]) {
        self.answers[self.channels[&channel]].extend_from_slice(bytes);
    }

    fn on_eof(&mut self, cx: &mut Context<'_>, channel: Channel) {
        let index = self.channels[&channel];
        let answer = &self.answers[index];
        let text = String::from_utf8_lossy(answer.get(34..).unwrap_or_default()).into_owned();
        let _ = self.heard.send((index, Heard::Answer(answer[0], text)));
        let _ = cx.finish(channel);
    }

    fn on_channel_closed(&mut self, _cx: &mut Context<'_>, channel: Channel, end: &ChannelEnd) {
        let heard = match end {
            ChannelEnd::Declined { code, .. } => Heard::Declined(*code),
            other => Heard::Ended(format!("{other:?}")),
        };
        let _ = self.heard.send((self.channels[&channel], heard));
    }
}
