//! Receiving: buffers for the kernel, requests that go on and on, what they bring.

use super::super::Batch;
use super::messages::{self, PAYLOAD};
use super::provided::GROUP;
use super::{UringDriver, kind};
use io_uring::{cqueue, opcode, types};
use std::io;

impl UringDriver {
    /// Gives the kernel buffers and starts the receives that are not under way.
    pub(super) fn prepare(&mut self) -> io::Result<()> {
        let memory = &mut *self.memory;
        memory.rx.reclaim();
        let len = (PAYLOAD + self.config.rx_buffer_bytes) as u32;
        let before = self.posted;
        while self.posted < self.demand.wanted()
            && let Some(index) = memory.rx.take()
        {
            memory.provided.push(index as u16, memory.rx.address(index), len);
            self.posted += 1;
        }
        if self.posted != before {
            memory.provided.publish();
        }
        if self.unarmed > 0 && self.posted > 0 {
            self.arm_all()?;
        }
        self.arm_streams()?;
        if !self.wake_armed
            && let Some(fd) = self.signal.event_fd()
        {
            let entry = opcode::PollAdd::new(types::Fd(fd), libc::POLLIN as u32).multi(true);
            // SAFETY: the entry points to nothing.
            unsafe { self.ring.push(&entry.build().user_data(kind::WAKE))? };
            self.wake_armed = true;
            self.under_way += 1;
        }
        Ok(())
    }

    fn arm_all(&mut self) -> io::Result<()> {
        for (number, slot) in self.slots.iter_mut().enumerate() {
            let Some(slot) = slot else { continue };
            if slot.armed || slot.closing {
                continue;
            }
            let file = types::Fixed(number as u32);
            let entry = opcode::RecvMsgMulti::new(file, self.memory.receive.as_ptr(), GROUP);
            // SAFETY: the header and the buffers of the group live as long as `memory`, which is
            // only freed when no request is under way.
            unsafe {
                self.ring.push(&entry.build().user_data(kind::RECEIVE | number as u64))?;
            }
            slot.armed = true;
            self.unarmed -= 1;
            self.under_way += 1;
            self.stats.rx_rearmed += u64::from(slot.known);
            slot.known = true;
        }
        Ok(())
    }

    /// A receive brought something, or ended.
    pub(super) fn on_receive(
        &mut self,
        number: usize,
        result: i32,
        flags: u32,
        batch: &mut Batch,
    ) -> io::Result<()> {
        let Some(Some(slot)) = self.slots.get_mut(number) else { return Ok(()) };
        if !cqueue::more(flags) {
            slot.armed = false;
            self.under_way -= 1;
            self.unarmed += usize::from(!slot.closing);
            if result == -libc::ENOBUFS && self.demand.ran_out() {
                self.stats.rx_no_buffer += 1;
            }
        }
        let closing = slot.closing;
        if let Some(buffer) = cqueue::buffer_select(flags) {
            self.posted -= 1;
            let token = u32::from(buffer);
            let rx = &mut self.memory.rx;
            let written = usize::try_from(result).ok().filter(|_| !closing);
            rx.hold(token);
            let item = written.and_then(|written| {
                let received = messages::parse(rx.open(token, 0, written).0);
                slot.arrivals.item(token, received, &mut self.stats)
            });
            match item {
                Some(item) => batch.rx.push(item),
                None => self.memory.rx.release(token),
            }
        }
        if closing { self.finish_removal(number) } else { Ok(()) }
    }
}
