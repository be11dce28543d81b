//! The members of a compressed file, one after the other.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::GzDecoder;

/// The reason why a compressed file cannot be read further.
#[derive(Clone, Debug)]
pub(super) enum Broken {
    /// The file is truncated; its rest may still be written.
    Truncated,
    Corrupt(String),
}

impl Broken {
    /// Returns the defect that an error of the decoder stands for; `None` for an error of the file system.
    pub(super) fn of(error: &io::Error) -> Option<Self> {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Some(Self::Truncated),
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => Some(Self::Corrupt(error.to_string())),
            _ => None,
        }
    }
}

/// Decompresses all members. Zero bytes behind the last one, which tapes and preallocated files have, are its end, as
/// they are for `gzip`.
#[derive(Debug)]
pub(super) struct Members {
    /// `None` only while a member is exchanged for the next.
    member: Option<GzDecoder<BufReader<File>>>,
}

impl Members {
    pub(super) fn new(file: File) -> Self {
        Self { member: Some(GzDecoder::new(BufReader::new(file))) }
    }

    /// Goes on to the next member; returns whether there is one.
    fn next_member(&mut self) -> io::Result<bool> {
        let Some(member) = self.member.take() else { return Ok(false) };
        let mut input = member.into_inner();
        let more = skip_zeros(&mut input);
        self.member = Some(GzDecoder::new(input));
        more
    }
}

/// Passes zero bytes; returns whether anything follows.
fn skip_zeros(input: &mut impl BufRead) -> io::Result<bool> {
    loop {
        let buffer = input.fill_buf()?;
        if buffer.is_empty() {
            return Ok(false);
        }
        let zeros = buffer.iter().take_while(|byte| **byte == 0).count();
        let is_all = zeros == buffer.len();
        input.consume(zeros);
        if !is_all {
            return Ok(true);
        }
    }
}

impl Read for Members {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(member) = &mut self.member else { return Ok(0) };
            let read = member.read(buffer)?;
            if read > 0 || buffer.is_empty() || !self.next_member()? {
                return Ok(read);
            }
        }
    }
}
