//! The repair of a last line without a newline.
//!
//! A crash during a write leaves one. Its effects were not acknowledged, so that the events are redelivered, and removing
//! the line loses nothing. A line that is a whole JSON document comes from another program, and gets its newline.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use crate::formats::encode::{Format, is_json};

/// A repair of a file's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repair {
    Nothing,
    Completed,
    Cut { bytes: u64 },
}

/// Returns the repair that [`repair`] would make.
pub(super) fn look(file: &mut File, format: Format) -> io::Result<Repair> {
    let end = file.seek(SeekFrom::End(0))?;
    let start = last_line(file, end)?;
    Ok(if start == end {
        Repair::Nothing
    } else if format == Format::Json && is_whole(file, start, end)? {
        Repair::Completed
    } else {
        Repair::Cut { bytes: end - start }
    })
}

/// Makes a file end with a whole line. The file must be open for appending.
pub(super) fn repair(file: &mut File, format: Format) -> io::Result<Repair> {
    let needed = look(file, format)?;
    match needed {
        Repair::Nothing => return Ok(needed),
        Repair::Completed => file.write_all(b"\n")?,
        Repair::Cut { bytes } => {
            let end = file.seek(SeekFrom::End(0))?;
            file.set_len(end - bytes)?;
        }
    }
    file.sync_data()?;
    Ok(needed)
}

/// Returns the offset of the last line: the byte after the last newline.
fn last_line(file: &mut File, end: u64) -> io::Result<u64> {
    const CHUNK: u64 = 64 * 1024;
    let mut buffer = Vec::new();
    let mut upto = end;
    while upto > 0 {
        let from = upto.saturating_sub(CHUNK);
        read(file, from, upto, &mut buffer)?;
        if let Some(newline) = memchr::memrchr(b'\n', &buffer) {
            return Ok(from + newline as u64 + 1);
        }
        upto = from;
    }
    Ok(0)
}

/// Returns whether a line is a JSON document with an end of its own. `12` has none: it may be a truncated `123`.
fn is_whole(file: &mut File, start: u64, end: u64) -> io::Result<bool> {
    const MAX_LINE_BYTES: u64 = 64 << 20;
    if end - start > MAX_LINE_BYTES {
        return Ok(false);
    }
    let mut line = Vec::new();
    read(file, start, end, &mut line)?;
    let bounded = matches!(line.first(), Some(b'{' | b'[' | b'"'));
    Ok(bounded && std::str::from_utf8(&line).is_ok_and(is_json))
}

fn read(file: &mut File, from: u64, upto: u64, buffer: &mut Vec<u8>) -> io::Result<()> {
    buffer.clear();
    file.seek(SeekFrom::Start(from))?;
    file.take(upto - from).read_to_end(buffer)?;
    if buffer.len() as u64 == upto - from { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};

    use super::*;

    fn check(before: &[u8], format: Format, expected: Repair, after: &[u8]) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lines");
        fs::write(&path, before).unwrap();
        let mut file = OpenOptions::new().read(true).append(true).open(&path).unwrap();
        assert_eq!(repair(&mut file, format).unwrap(), expected);
        assert_eq!(fs::read(&path).unwrap(), after);
    }

    #[test]
    fn r73_a_truncated_last_line_is_removed() {
        check(b"", Format::Json, Repair::Nothing, b"");
        check(b"{}\n", Format::Json, Repair::Nothing, b"{}\n");
        check(b"{}\n{\"a\":", Format::Json, Repair::Cut { bytes: 5 }, b"{}\n");
        check(b"{\"a\":", Format::Json, Repair::Cut { bytes: 5 }, b"");
        check(b"1\n12", Format::Json, Repair::Cut { bytes: 2 }, b"1\n");
        check(b"{}\n{}\xff", Format::Json, Repair::Cut { bytes: 3 }, b"{}\n");
        check(b"a\n{}", Format::Text, Repair::Cut { bytes: 2 }, b"a\n");
    }

    #[test]
    fn a_whole_document_gets_its_newline() {
        check(b"{}\n{\"a\":[1]}", Format::Json, Repair::Completed, b"{}\n{\"a\":[1]}\n");
        check(b"\"a\"", Format::Json, Repair::Completed, b"\"a\"\n");
    }

    #[test]
    fn a_last_line_longer_than_the_read_buffer_is_repaired() {
        let torn = [b"{}\n[\"".to_vec(), vec![b'x'; 200_000]].concat();
        check(&torn, Format::Json, Repair::Cut { bytes: 200_002 }, b"{}\n");
        let whole = [torn, b"\"]".to_vec()].concat();
        check(&whole, Format::Json, Repair::Completed, &[whole.clone(), b"\n".to_vec()].concat());
    }

    #[test]
    fn r73_a_crash_at_any_byte_leaves_whole_lines() {
        let lines = b"{\"a\":1}\n\"b\\n\"\n[2,{}]\n3.5\n";
        for length in 0..=lines.len() {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("lines");
            fs::write(&path, &lines[..length]).unwrap();
            let mut file = OpenOptions::new().read(true).append(true).open(&path).unwrap();
            repair(&mut file, Format::Json).unwrap();
            let repaired = fs::read(&path).unwrap();
            assert!(lines.starts_with(&repaired) && (repaired.is_empty() || repaired.ends_with(b"\n")), "{length}");
        }
    }
}
