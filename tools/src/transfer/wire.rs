//! The bytes of one file channel: header, data, digest one way, an answer the other.

use std::fmt;

/// Channel names start with this.
pub const SCHEME: &str = "file://";
/// Version in the header.
const VERSION: u8 = 1;
/// Bytes of the header.
pub const HEADER_LEN: usize = 12;
/// Bytes of a SHA-256.
pub const DIGEST_LEN: usize = 32;
/// Longest text of an answer.
const MAX_TEXT: usize = 255;
/// Longest answer.
const MAX_ANSWER: usize = 1 + DIGEST_LEN + 1 + MAX_TEXT;

/// SHA-256 of a file.
pub type Digest = [u8; DIGEST_LEN];

/// What became of a file, or why it is not wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(pub u32);

impl Code {
    /// The digest agreed and the file has its final name.
    pub const STORED: Self = Self(0);
    /// What arrived is not what was sent.
    pub const DIGEST_DIFFERS: Self = Self(1);
    /// The name is not safe, or the channel is no file.
    pub const NAME_REFUSED: Self = Self(2);
    /// The name is taken.
    pub const EXISTS: Self = Self(3);
    /// Over the receiver's limit.
    pub const TOO_LARGE: Self = Self(4);
    /// The receiver could not write.
    pub const NOT_STORED: Self = Self(5);
    /// The sender broke the protocol.
    pub const MALFORMED: Self = Self(6);
    /// The receiver is shutting down.
    pub const INTERRUPTED: Self = Self(7);
    /// The sender could not read the file to its stated size.
    pub const SOURCE_CHANGED: Self = Self(8);
    /// More files at once than the receiver takes.
    pub const TOO_MANY: Self = Self(9);

    /// Its name in `docs/file-transfer.md`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::STORED => "stored",
            Self::DIGEST_DIFFERS => "digest differs",
            Self::NAME_REFUSED => "name refused",
            Self::EXISTS => "exists",
            Self::TOO_LARGE => "too large",
            Self::NOT_STORED => "not stored",
            Self::MALFORMED => "malformed",
            Self::INTERRUPTED => "interrupted",
            Self::SOURCE_CHANGED => "source changed",
            Self::TOO_MANY => "too many files",
            _ => "unknown code",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What comes before a file's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Unix permission bits; 0 = not stated.
    pub mode: u16,
    /// Bytes of the file.
    pub size: u64,
}

impl Header {
    /// The bytes.
    pub fn encode(self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[0] = VERSION;
        out[2..4].copy_from_slice(&(self.mode & 0o777).to_be_bytes());
        out[4..].copy_from_slice(&self.size.to_be_bytes());
        out
    }

    /// `None` for another version.
    fn decode(bytes: [u8; HEADER_LEN]) -> Option<Self> {
        let [version, reserved, m0, m1, size @ ..] = bytes;
        let mode = u16::from_be_bytes([m0, m1]);
        (version == VERSION && reserved == 0 && mode <= 0o777)
            .then(|| Self { mode, size: u64::from_be_bytes(size) })
    }
}

/// A piece of a file channel, as [`Intake::feed`] finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// The header is complete.
    Header(Header),
    /// The next bytes of the file.
    Data(&'a [u8]),
    /// Everything has arrived; this digest belongs to it.
    Digest(Digest),
}

/// The stream broke the rules of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// Takes a file channel apart, however its bytes are cut.
#[derive(Debug)]
pub struct Intake {
    state: State,
    /// Header or digest being put together.
    partial: [u8; DIGEST_LEN],
    filled: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Header,
    Data { left: u64 },
    Digest,
    Complete,
}

impl Intake {
    /// Before the first byte.
    pub const fn new() -> Self {
        Self { state: State::Header, partial: [0; DIGEST_LEN], filled: 0 }
    }

    /// Takes the next piece off the front of `bytes`; `None` when all bytes are used up.
    pub fn feed<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Piece<'a>>, Malformed> {
        match self.state {
            State::Header => {
                if !self.fill(bytes, HEADER_LEN) {
                    return Ok(None);
                }
                let mut header = [0; HEADER_LEN];
                header.copy_from_slice(&self.partial[..HEADER_LEN]);
                let header = Header::decode(header)
                    .ok_or(Malformed("unknown version of the file header"))?;
                self.filled = 0;
                self.state = match header.size {
                    0 => State::Digest,
                    left => State::Data { left },
                };
                Ok(Some(Piece::Header(header)))
            }
            State::Data { left } => {
                if bytes.is_empty() {
                    return Ok(None);
                }
                let take = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                let (data, rest) = bytes.split_at(take);
                *bytes = rest;
                self.state = match left - take as u64 {
                    0 => State::Digest,
                    left => State::Data { left },
                };
                Ok(Some(Piece::Data(data)))
            }
            State::Digest => {
                if !self.fill(bytes, DIGEST_LEN) {
                    return Ok(None);
                }
                self.state = State::Complete;
                Ok(Some(Piece::Digest(self.partial)))
            }
            State::Complete if bytes.is_empty() => Ok(None),
            State::Complete => Err(Malformed("bytes beyond the digest")),
        }
    }

    /// Whether an EOF is right here.
    pub fn is_complete(&self) -> bool {
        self.state == State::Complete
    }

    fn fill(&mut self, bytes: &mut &[u8], len: usize) -> bool {
        let take = (len - self.filled).min(bytes.len());
        let (head, rest) = bytes.split_at(take);
        self.partial[self.filled..self.filled + take].copy_from_slice(head);
        self.filled += take;
        *bytes = rest;
        self.filled == len
    }
}

/// What the receiver says about one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What became of it.
    pub code: Code,
    /// SHA-256 of what was received; zeros when none was computed.
    pub digest: Digest,
    /// Words for people.
    pub text: String,
}

impl Answer {
    /// The bytes; the text is cut to what fits.
    pub fn encode(&self) -> Vec<u8> {
        let mut end = self.text.len().min(MAX_TEXT);
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        let mut out = Vec::with_capacity(2 + DIGEST_LEN + end);
        out.push(u8::try_from(self.code.0).unwrap_or(u8::MAX));
        out.extend_from_slice(&self.digest);
        out.push(end as u8);
        out.extend_from_slice(&self.text.as_bytes()[..end]);
        out
    }
}

/// Puts an answer together, however its bytes are cut.
#[derive(Debug, Default)]
pub struct AnswerIntake {
    bytes: Vec<u8>,
}

impl AnswerIntake {
    /// Takes more bytes; never keeps more than one answer.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        if self.bytes.len() + bytes.len() > MAX_ANSWER {
            return Err(Malformed("answer too long"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// The answer, at EOF.
    pub fn finish(&self) -> Result<Answer, Malformed> {
        let cut = Malformed("answer incomplete");
        let (&code, rest) = self.bytes.split_first().ok_or(cut)?;
        let (digest, rest) = rest.split_at_checked(DIGEST_LEN).ok_or(cut)?;
        let (&len, text) = rest.split_first().ok_or(cut)?;
        if text.len() != usize::from(len) {
            return Err(cut);
        }
        let mut out = [0; DIGEST_LEN];
        out.copy_from_slice(digest);
        let text = String::from_utf8_lossy(text).into_owned();
        Ok(Answer { code: Code(u32::from(code)), digest: out, text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn channel(header: Header, data: &[u8], digest: Digest) -> Vec<u8> {
        [&header.encode()[..], data, &digest].concat()
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same(
            data in proptest::collection::vec(any::<u8>(), 0..300),
            mode in 0u16..=0o777,
            digest in any::<[u8; 32]>(),
            cuts in proptest::collection::vec(1usize..40, 0..40),
        ) {
            let header = Header { mode, size: data.len() as u64 };
            let all = channel(header, &data, digest);
            let mut intake = Intake::new();
            let (mut got, mut head, mut tail) = (Vec::new(), None, None);
            let mut rest = &all[..];
            let mut cuts = cuts.into_iter();
            while !rest.is_empty() {
                let take = cuts.next().unwrap_or(7).min(rest.len());
                let (mut part, after) = rest.split_at(take);
                rest = after;
                while let Some(piece) = intake.feed(&mut part).unwrap() {
                    match piece {
                        Piece::Header(h) => head = Some(h),
                        Piece::Data(d) => got.extend_from_slice(d),
                        Piece::Digest(d) => tail = Some(d),
                    }
                }
                prop_assert!(part.is_empty());
            }
            prop_assert_eq!(head, Some(header));
            prop_assert_eq!(got, data);
            prop_assert_eq!(tail, Some(digest));
            prop_assert!(intake.is_complete());
            prop_assert!(intake.feed(&mut &b"x"[..]).is_err());
        }

        #[test]
        fn intake_takes_anything_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut intake = Intake::new();
            let mut rest = &bytes[..];
            while let Ok(Some(_)) = intake.feed(&mut rest) {}
        }

        #[test]
        fn answers_survive(code in 0u32..256, digest in any::<[u8; 32]>(), text in "\\PC{0,400}") {
            let answer = Answer { code: Code(code), digest, text: text.clone() };
            let mut intake = AnswerIntake::default();
            for part in answer.encode().chunks(17) {
                intake.feed(part).unwrap();
            }
            let got = intake.finish().unwrap();
            prop_assert_eq!(got.code, answer.code);
            prop_assert_eq!(got.digest, digest);
            prop_assert!(text.starts_with(&got.text));
        }
    }

    #[test]
    fn broken_answers() {
        let whole = Answer { code: Code::STORED, digest: [7; 32], text: "ok".into() }.encode();
        for len in 0..whole.len() {
            let mut intake = AnswerIntake::default();
            intake.feed(&whole[..len]).unwrap();
            assert!(intake.finish().is_err(), "{len} bytes passed");
        }
        assert!(AnswerIntake::default().feed(&[0; MAX_ANSWER + 1]).is_err());
    }

    #[test]
    fn other_versions_are_refused() {
        let mut bytes = Header { mode: 0o644, size: 1 }.encode();
        bytes[0] = 2;
        assert!(Intake::new().feed(&mut &bytes[..]).is_err());
    }

    /// The example of `docs/file-transfer.md` as bytes, for other implementations.
    #[test]
    fn header_layout() {
        let bytes = Header { mode: 0o640, size: 0x0102_0304_0506_0708 }.encode();
        assert_eq!(crate::hex::encode(&bytes), "010001a00102030405060708");
    }
}
