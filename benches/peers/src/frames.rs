//! Messages of one length in a byte stream: the cheapest framing there is, for peers that have
//! streams and no messages.

/// Puts messages together again.
pub struct Frames {
    length: usize,
    partial: Vec<u8>,
}

impl Frames {
    /// Messages of `length` bytes, more than none.
    pub fn new(length: usize) -> Self {
        Self { length: length.max(1), partial: Vec::new() }
    }

    /// The next bytes of the stream; `each` sees every whole message, in place where it can.
    pub fn push(&mut self, mut bytes: &[u8], mut each: impl FnMut(&[u8])) {
        if !self.partial.is_empty() {
            let (head, rest) = bytes.split_at(bytes.len().min(self.length - self.partial.len()));
            self.partial.extend_from_slice(head);
            bytes = rest;
            if self.partial.len() < self.length {
                return;
            }
            each(&self.partial);
            self.partial.clear();
        }
        let mut whole = bytes.chunks_exact(self.length);
        for message in &mut whole {
            each(message);
        }
        self.partial.extend_from_slice(whole.remainder());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_cut_gives_the_same_messages() {
        let stream: Vec<u8> = (0..=255).collect();
        for cut in 1..=200 {
            let (mut frames, mut seen) = (Frames::new(64), Vec::new());
            for part in stream.chunks(cut) {
                frames.push(part, |message| seen.push(message.to_vec()));
            }
            assert_eq!(seen.len(), 4, "cut {cut}");
            assert_eq!(seen.concat(), stream, "cut {cut}");
        }
    }

    #[test]
    fn a_partial_message_waits() {
        let mut frames = Frames::new(8);
        frames.push(&[0; 7], |_| panic!("not whole"));
        let mut whole = 0;
        frames.push(&[0; 10], |_| whole += 1);
        assert_eq!(whole, 2);
    }
}
