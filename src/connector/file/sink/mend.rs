//! What is done about a last line that has no end.
//!
//! A crash in the middle of a write leaves one. Its effects were not reported as written, so they come again: cutting
//! it off loses nothing. A line that is a whole JSON document all the same (another program wrote the file) gets the
//! newline that it lacks.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use crate::formats::encode::{Format, is_json};

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mended {
    Nothing,
    Completed,
    Cut { bytes: u64 },
}

/// Returns what [`mend`] would do.
pub(super) fn look(file: &mut File, format: Format) -> io::Result<Mended> {
    let end = file.seek(SeekFrom::End(0))?;
    let start = last_line(file, end)?;
    Ok(if start == end {
        Mended::Nothing
    } else if format == Format::Json && is_whole(file, start, end)? {
        Mended::Completed
    } else {
        Mended::Cut { bytes: end - start }
    })
}

/// Makes a file end with a whole line. It must have been opened for appending.
pub(super) fn mend(file: &mut File, format: Format) -> io::Result<Mended> {
    let mended = look(file, format)?;
    match mended {
        Mended::Nothing => return Ok(mended),
        Mended::Completed => file.write_all(b"\n")?,
        Mended::Cut { bytes } => {
            let end = file.seek(SeekFrom::End(0))?;
            file.set_len(end - bytes)?;
        }
    }
    file.sync_data()?;
    Ok(mended)
}

/// Returns where the last line starts: after the last newline.
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

/// Returns whether a line is JSON that shows by itself where it ends: `12` may be a torn `123`.
fn is_whole(file: &mut File, start: u64, end: u64) -> io::Result<bool> {
    const LONGEST: u64 = 64 << 20;
    if end - start > LONGEST {
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

    fn check(before: &[u8], format: Format, mended: Mended, after: &[u8]) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines");
        fs::write(&path, before).unwrap();
        let mut file = OpenOptions::new().read(true).append(true).open(&path).unwrap();
        assert_eq!(mend(&mut file, format).unwrap(), mended);
        assert_eq!(fs::read(&path).unwrap(), after);
    }

    #[test]
    fn r73_a_torn_last_line_is_cut_off() {
        check(b"", Format::Json, Mended::Nothing, b"");
        check(b"{}\n", Format::Json, Mended::Nothing, b"{}\n");
        check(b"{}\n{\"a\":", Format::Json, Mended::Cut { bytes: 5 }, b"{}\n");
        check(b"{\"a\":", Format::Json, Mended::Cut { bytes: 5 }, b"");
        check(b"1\n12", Format::Json, Mended::Cut { bytes: 2 }, b"1\n");
        check(b"{}\n{}\xff", Format::Json, Mended::Cut { bytes: 3 }, b"{}\n");
        check(b"a\n{}", Format::Text, Mended::Cut { bytes: 2 }, b"a\n");
    }

    #[test]
    fn a_whole_document_gets_the_newline_that_it_lacks() {
        check(b"{}\n{\"a\":[1]}", Format::Json, Mended::Completed, b"{}\n{\"a\":[1]}\n");
        check(b"\"a\"", Format::Json, Mended::Completed, b"\"a\"\n");
    }

    #[test]
    fn a_last_line_longer_than_what_is_read_at_a_time_is_mended_too() {
        let torn = [b"{}\n[\"".to_vec(), vec![b'x'; 200_000]].concat();
        check(&torn, Format::Json, Mended::Cut { bytes: 200_002 }, b"{}\n");
        let whole = [torn, b"\"]".to_vec()].concat();
        check(&whole, Format::Json, Mended::Completed, &[whole.clone(), b"\n".to_vec()].concat());
    }

    #[test]
    fn r73_wherever_a_crash_cuts_the_file_whole_lines_remain() {
        let lines = b"{\"a\":1}\n\"b\\n\"\n[2,{}]\n3.5\n";
        for length in 0..=lines.len() {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("lines");
            fs::write(&path, &lines[..length]).unwrap();
            let mut file = OpenOptions::new().read(true).append(true).open(&path).unwrap();
            mend(&mut file, Format::Json).unwrap();
            let mended = fs::read(&path).unwrap();
            assert!(lines.starts_with(&mended) && (mended.is_empty() || mended.ends_with(b"\n")), "{length}");
        }
    }
}
