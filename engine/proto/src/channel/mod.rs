//! stub
#![allow(missing_docs, unused_variables, clippy::all)]
use crate::config::*;
use crate::endpoint::SendOptions;
use crate::error::*;
use crate::event::*;
use crate::ids::*;
use crate::payload::Payload;
use crate::time::*;
use crate::wire::frame::RawFrame;
use crate::wire::params::TransportParams;
use crate::wire::record::FrameRecord;
use std::sync::Arc;
#[derive(Debug)]
pub struct Mux;
pub struct ChannelInfo<'a>(&'a ());
pub enum AuthMessage {
    Request { credential: Vec<u8> },
    Response { accepted: bool, reason: Reason, text: String },
}
impl Mux {
    pub fn new(role: Role, c: Arc<ConnectionConfig>) -> Self {
        todo!()
    }
    pub fn set_peer(&mut self, p: &TransportParams) {}
    pub fn set_rtt(&mut self, d: Duration) {}
    pub fn set_established(&mut self) {}
    pub fn send_control(&mut self, b: &[u8]) {}
    pub fn open(
        &mut self,
        now: Instant,
        name: &str,
        o: &ChannelOptions,
        next_pn: u64,
    ) -> Result<ChannelKey, ApiError> {
        todo!()
    }
    pub fn accept<S: Sink>(
        &mut self,
        now: Instant,
        c: ConnHandle,
        k: ChannelKey,
        o: &ChannelOptions,
        n: u64,
        s: &mut S,
    ) -> Result<(), ApiError> {
        todo!()
    }
    pub fn decline(
        &mut self,
        now: Instant,
        k: ChannelKey,
        code: u32,
        t: &str,
        n: u64,
    ) -> Result<(), ApiError> {
        todo!()
    }
    pub fn send(
        &mut self,
        now: Instant,
        k: ChannelKey,
        d: &[u8],
        o: SendOptions,
    ) -> Result<(), ApiError> {
        todo!()
    }
    pub fn send_payload(
        &mut self,
        now: Instant,
        k: ChannelKey,
        d: Payload,
        o: SendOptions,
    ) -> Result<(), ApiError> {
        todo!()
    }
    pub fn finish(&mut self, now: Instant, k: ChannelKey) -> Result<(), ApiError> {
        todo!()
    }
    pub fn reset(&mut self, now: Instant, k: ChannelKey, c: u32) -> Result<(), ApiError> {
        todo!()
    }
    pub fn stop(&mut self, now: Instant, k: ChannelKey, c: u32) -> Result<(), ApiError> {
        todo!()
    }
    pub fn flush(&mut self, now: Instant, k: ChannelKey) -> Result<(), ApiError> {
        todo!()
    }
    pub fn consume(&mut self, now: Instant, k: ChannelKey, b: u64) -> Result<(), ApiError> {
        todo!()
    }
    pub fn info(&self, k: ChannelKey) -> Option<ChannelInfo<'_>> {
        todo!()
    }
    pub fn count(&self) -> usize {
        0
    }
    pub fn on_frame<S: Sink>(
        &mut self,
        now: Instant,
        c: ConnHandle,
        pn: u64,
        f: &RawFrame<'_>,
        next_pn: u64,
        s: &mut S,
    ) -> Result<(), PeerMisbehaved> {
        todo!()
    }
    pub fn poll_control(&mut self) -> Option<AuthMessage> {
        None
    }
    pub fn on_credit<S: Sink>(
        &mut self,
        now: Instant,
        c: ConnHandle,
        pn: u64,
        ch: u16,
        l: u64,
        s: &mut S,
    ) -> Result<(), PeerMisbehaved> {
        todo!()
    }
    pub fn on_early_credit(&mut self, l: u64) {}
    pub fn on_reset<S: Sink>(
        &mut self,
        now: Instant,
        c: ConnHandle,
        pn: u64,
        ch: u16,
        code: u32,
        f: u64,
        s: &mut S,
    ) -> Result<(), PeerMisbehaved> {
        todo!()
    }
    pub fn on_stop<S: Sink>(
        &mut self,
        now: Instant,
        c: ConnHandle,
        pn: u64,
        ch: u16,
        code: u32,
        s: &mut S,
    ) -> Result<(), PeerMisbehaved> {
        todo!()
    }
    pub fn wants_to_send(&self) -> bool {
        false
    }
    pub fn timeout(&self) -> Option<Instant> {
        None
    }
    pub fn on_timeout<S: Sink>(&mut self, now: Instant, c: ConnHandle, s: &mut S) {}
    pub fn fill(&mut self, now: Instant, b: &mut [u8], r: &mut impl FnMut(FrameRecord)) -> usize {
        0
    }
    pub fn on_acked<S: Sink>(&mut self, now: Instant, c: ConnHandle, r: &FrameRecord, s: &mut S) {}
    pub fn on_lost(&mut self, r: &FrameRecord) {}
    pub fn unacked_reliable_bytes(&self) -> u64 {
        0
    }
    pub fn has_unacked_reliable(&self) -> bool {
        false
    }
    pub fn report(&self) -> (u64, u64, u32) {
        (0, 0, 0)
    }
    pub fn discard_incoming(&mut self) {}
    pub fn discarded(&self) -> bool {
        false
    }
    pub fn datagrams_dropped(&self) -> u64 {
        0
    }
    pub fn close_all<S: Sink>(&mut self, c: ConnHandle, r: &CloseReason, s: &mut S) {}
}
