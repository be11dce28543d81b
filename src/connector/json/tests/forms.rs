//! The forms in which the lines of a file come: compressed, with a byte order mark, too long, or through a pipe.

use super::*;

#[test]
fn a_single_file_is_read_with_its_byte_order_mark_and_other_line_ends() {
    let mut f = Fixture::new();
    f.settings.path = Text::literal("in/orders.json");
    f.check("Unavailable: open `/in/orders.json`");
    f.append("orders.json", &format!("\u{feff}{}\r\n", line("a-1", 0).trim_end()));
    f.check("a-1/0@0.1");
    fs::remove_file(f.path("orders.json")).unwrap();
    f.check("Unavailable: read `/in/orders.json`");
}

pub(super) fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn compressed_files_are_read_like_others() {
    let mut f = Fixture::new();
    let text: String = (0..9).map(|index| line("a-1", index)).collect();
    fs::write(f.path("a.jsonl.gz"), gzip(&text)).unwrap();
    f.settings.batch = NonZeroUsize::new(7).unwrap();
    let first = f.read_once().unwrap().batches.swap_remove(0);
    assert_eq!((first.events.len(), first.lag), (7, None));
    f.position = StartAt::Position(first.resume_at);
    f.reopen().check("a-1/7@0.8 a-1/8@0.9");
    f.append("b.jsonl", &line("b-1", 0));
    f.check("b-1/0@1.1");
}

#[test]
fn a_truncated_compressed_file_waits_for_its_rest_or_is_reported() {
    let mut f = Fixture::new();
    let whole = gzip(&line("a-1", 0));
    fs::write(f.path("a.jsonl.gz"), &whole[..whole.len() - 9]).unwrap();
    f.read().unwrap();
    fs::File::options().append(true).open(f.path("a.jsonl.gz")).unwrap().write_all(&whole[whole.len() - 9..]).unwrap();
    f.check("a-1/0@0.1");
    fs::write(f.path("b.jsonl.gz"), b"this is no gzip").unwrap();
    f.check("(b.jsonl.gz:1: the rest of the file cannot be decompressed: invalid gzip header @1.1)");
    f.reopen().check("");
}

#[test]
fn r69_lag_covers_all_files_and_is_unknown_if_one_is_compressed() {
    let mut f = Fixture::new();
    f.settings.batch = NonZeroUsize::new(1).unwrap();
    f.append("a.jsonl", &(line("a-1", 0) + &*line("a-1", 1)));
    f.append("b.jsonl", &line("b-1", 0));
    let size = line("a-1", 0).len() as u64;
    let lags = |read: LogRead| read.batches.iter().map(|batch| batch.lag.map(|lag| lag.amount)).collect::<Vec<_>>();
    assert_eq!(lags(f.read_once().unwrap()), [Some(2 * size), Some(size)]);
    assert_eq!(lags(f.read_once().unwrap()), [Some(0)]);
    assert_eq!(lags(f.read_once().unwrap()), [Some(0)]);
    fs::write(f.path("c.jsonl.gz"), gzip(&line("c-1", 0))).unwrap();
    assert_eq!(lags(f.read_once().unwrap()), [None]);
}

#[test]
fn a_line_that_is_too_long_is_a_malformed_record_and_reading_goes_on_behind_it() {
    let mut f = Fixture::new();
    f.append("a.jsonl", &line("a-1", 0));
    f.append("a.jsonl", &"x".repeat(65 << 20));
    f.check("a-1/0@0.1");
    f.append("a.jsonl", &("x".repeat(100) + "\n" + &*line("a-1", 2)));
    f.check("(a.jsonl:2: the line is longer than 64 MiB @0.2) a-1/2@0.3");
    f.append("a.jsonl", &line("a-1", 3));
    f.reopen().check("a-1/3@0.4");
}

#[test]
fn x6_zero_bytes_behind_a_compressed_file_are_its_end() {
    let mut f = Fixture::new();
    let mut padded = gzip(&line("a-1", 0));
    padded.extend(gzip(&line("a-1", 1)));
    padded.extend([0; 70_000]);
    fs::write(f.path("a.jsonl.gz"), &padded).unwrap();
    f.check("a-1/0@0.1 a-1/1@0.2");
    padded.extend(b"this is no member");
    fs::write(f.path("b.jsonl.gz"), &padded).unwrap();
    f.check(
        "a-1/0@1.1 a-1/1@1.2 (b.jsonl.gz:3: the rest of the file cannot be decompressed: invalid gzip header @1.3)",
    );
}

#[test]
fn x6_a_byte_order_mark_may_stand_before_a_comment_or_an_empty_line() {
    for first in ["# exported on Monday\n", "\n", "\r\n", ""] {
        let mut f = Fixture::new();
        f.append("a.jsonl", &format!("\u{feff}{first}{}", line("a-1", 0)));
        let number = if first.is_empty() { 1 } else { 2 };
        f.check(&format!("a-1/0@0.{number}"));
    }
}

#[test]
fn x6_a_lone_surrogate_in_a_body_is_kept() {
    let mut f = Fixture::new();
    f.append(
        "a.jsonl",
        "{\"stream\":\"a-1\",\"index\":0,\"type\":\"T\",\"data\":{\"t\":\"cut \\ud83d here\"},\"\\ud83d\":1}\n",
    );
    f.append("a.jsonl", "{\"stream\":\"a-\\ud83d\",\"index\":0,\"type\":\"T\"}\n");
    let events = f.read().unwrap();
    assert_eq!(events[0].data(), br#"{"t":"cut \ud83d here"}"#);
    assert_eq!(show(&events[1]), "(a.jsonl:2: expected a string @0.2)");
}

fn make_pipe(f: &Fixture) -> PathBuf {
    let path = f.path("pipe");
    let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    path
}

/// Reads until the log is at its tail, waiting for the writer; returns the events.
fn read_pipe(f: &mut Fixture) -> String {
    let mut events = Vec::new();
    loop {
        let read = f.read_once().unwrap();
        for batch in read.batches {
            f.position = StartAt::Position(batch.resume_at);
            events.extend(batch.events.iter().map(show));
        }
        match read.end {
            LogEnd::Tail => return events.join(" "),
            LogEnd::Pending => std::thread::yield_now(),
            LogEnd::More | LogEnd::Ended => {}
        }
    }
}

#[test]
fn s19_a_named_pipe_is_read_to_the_end_of_its_writer() {
    let mut f = Fixture::new();
    let path = make_pipe(&f);
    f.settings.path = Text::literal("in/pipe");
    f.finite = true;
    assert_eq!(f.read_once().unwrap().end, LogEnd::Pending, "the first writer may still come");
    for number in 0..2 {
        let (path, text) = (path.clone(), line("a-1", 0) + line("a-1", 1).trim_end());
        let writer = std::thread::spawn(move || fs::write(path, text).unwrap());
        assert_eq!(read_pipe(&mut f), format!("a-1/0@{number}.1 a-1/1@{number}.2"));
        writer.join().unwrap();
        // After a restart, other bytes come, under a new number.
        f.reopen();
    }
}

#[test]
fn s19_a_service_is_at_the_tail_of_a_pipe_without_a_writer() {
    let mut f = Fixture::new();
    make_pipe(&f);
    f.settings.path = Text::literal("in/pipe");
    f.check("");
}

#[test]
fn s19_a_pipe_without_a_name_ends_with_its_writer() {
    use std::os::fd::AsRawFd;
    let (reader, mut writer) = std::io::pipe().unwrap();
    let mut f = Fixture::new();
    // `/dev/stdin` is such a path.
    f.settings.path = Text::literal(&format!("/proc/self/fd/{}", reader.as_raw_fd()));
    f.finite = true;
    assert_eq!(f.read_once().unwrap().end, LogEnd::Pending, "the writer may go on");
    writer.write_all(line("a-1", 0).as_bytes()).unwrap();
    drop(writer);
    assert_eq!(read_pipe(&mut f), "a-1/0@0.1");
    f.reopen();
    assert_eq!(read_pipe(&mut f), "", "nothing is waited for");
}

#[test]
fn a_position_is_described_by_its_file_and_line() {
    let mut fixture = Fixture::new();
    let source = source(&fixture.settings, &fixture.context(), false).unwrap();
    let described = |fixture: &Fixture| match &fixture.position {
        StartAt::Origin => panic!("nothing was read"),
        StartAt::Position(position) => source.describe(position),
    };
    fixture.check("");
    assert_eq!(described(&fixture), "origin");
    fixture.append("a.jsonl", &format!("{}\n{}", line("a-1", 0), line("a-1", 1)));
    fixture.check("a-1/0@0.1 a-1/1@0.3");
    assert_eq!(described(&fixture), "a.jsonl line 3");
    assert_eq!(source.describe(&Position::Number(7)), "7", "the position of another source");
}
