//! Files that are no longer what they were (C2).

use super::*;

#[test]
fn c2_a_replaced_file_is_position_lost() {
    // Another file with as many bytes, with more, and with fewer.
    let others = [(line("b-1", 0), true), (line("b-1", 0) + &*line("b-1", 1), true), (String::new(), false)];
    for (other, as_long) in others {
        let mut f = Fixture::new();
        f.append("a.jsonl", &line("a-1", 0));
        f.check("a-1/0@0.1");
        f.replace("a.jsonl", &other);
        let lost = "PositionLost: resume in `/in/a.jsonl`: it was replaced by another file (remedy)";
        f.check(lost);
        f.reopen().check(if as_long {
            lost
        } else {
            "PositionLost: resume in `/in/a.jsonl`: it is shorter than it was (remedy)"
        });
    }
}

#[test]
fn c2_a_copy_in_the_place_of_a_file_is_that_file() {
    let mut f = Fixture::new();
    f.append("a.jsonl", &line("a-1", 0));
    f.check("a-1/0@0.1");
    // Restored while no reader runs.
    f.replace("a.jsonl", &line("a-1", 0));
    f.reopen().check("");
    f.append("a.jsonl", &line("a-1", 1));
    f.check("a-1/1@0.2");
    // Rewritten with more lines while a reader runs.
    f.replace("a.jsonl", &(line("a-1", 0) + &*line("a-1", 1) + &*line("a-1", 2)));
    f.check("a-1/2@0.3");
    f.append("a.jsonl", &line("a-1", 3));
    f.check("a-1/3@0.4");
    // Also with `on_replaced = "restart"`.
    f.settings.on_replaced = OnReplaced::Restart;
    f.replace("a.jsonl", &(0..5).map(|index| line("a-1", index)).collect::<String>());
    f.reopen().check("a-1/4@0.5");
}

#[test]
fn c2_a_file_that_is_rotated_away_is_not_taken_for_the_one_in_its_place() {
    let mut f = Fixture::new();
    f.append("a.jsonl", &line("a-1", 0));
    f.check("a-1/0@0.1");
    fs::rename(f.path("a.jsonl"), f.path("a.old")).unwrap();
    f.append("a.jsonl", &line("a-2", 0));
    f.check("PositionLost: resume in `/in/a.jsonl`: it was replaced by another file (remedy)");
    fs::rename(f.path("a.old"), f.path("a.jsonl")).unwrap();
    f.reopen().check("");
}

#[test]
fn c2_a_copied_directory_is_that_directory() {
    let mut f = Fixture::new();
    for (name, stream) in [("a.jsonl", "a-1"), ("b.jsonl", "b-1"), ("c.jsonl", "c-1")] {
        f.append(name, &line(stream, 0));
    }
    f.check("a-1/0@0.1 b-1/0@1.1 c-1/0@2.1");
    for name in ["a.jsonl", "b.jsonl", "c.jsonl"] {
        let text = fs::read_to_string(f.path(name)).unwrap();
        f.replace(name, &text);
    }
    f.reopen().check("");
    f.append("c.jsonl", &line("c-1", 1));
    f.append("d.jsonl", &line("d-1", 0));
    f.check("c-1/1@2.2 d-1/0@3.1");
    f.replace("b.jsonl", &line("x-1", 0));
    f.reopen()
        .check("PositionLost: resume in `/in/b.jsonl`: it was replaced by another file after it was read (remedy)");
}

#[test]
fn c2_a_replaced_file_that_is_to_be_read_again_gets_a_new_number() {
    let mut f = Fixture::restarting();
    f.append("a.jsonl", &line("a-1", 0));
    f.check("a-1/0@0.1");
    f.replace("a.jsonl", &line("a-1", 7));
    f.check("a-1/7@1.1");
    f.replace("a.jsonl", &line("a-1", 8));
    f.reopen().check("a-1/8@2.1");
    f.reopen().check("");
}

#[test]
fn c2_a_truncated_file_is_position_lost() {
    let mut f = Fixture::new();
    f.append("a.jsonl", &(line("a-1", 0) + &*line("a-1", 1)));
    f.check("a-1/0@0.1 a-1/1@0.2");
    fs::write(f.path("a.jsonl"), line("a-1", 0)).unwrap();
    f.check("PositionLost: resume in `/in/a.jsonl`: it is shorter than it was (remedy)");
    f.reopen().check("PositionLost: resume in `/in/a.jsonl`: it is shorter than it was (remedy)");
    fs::write(f.path("a.jsonl"), line("b-1", 0) + &*line("b-1", 1) + &*line("b-1", 2)).unwrap();
    f.check("PositionLost: resume in `/in/a.jsonl`: its first bytes are not what they were (remedy)");
    f.reopen().check("PositionLost: resume in `/in/a.jsonl`: its first bytes are not what they were (remedy)");
}

#[test]
fn c2_a_truncated_file_that_is_to_be_read_again_gets_a_new_number() {
    let mut f = Fixture::restarting();
    f.append("a.jsonl", &(line("a-1", 0) + &*line("a-1", 1)));
    f.check("a-1/0@0.1 a-1/1@0.2");
    fs::write(f.path("a.jsonl"), line("a-1", 5)).unwrap();
    f.check("a-1/5@1.1");
}

#[test]
fn c2_a_new_file_that_sorts_before_the_one_being_read_is_position_lost() {
    let mut f = Fixture::new();
    f.append("b.jsonl", &line("b-1", 0));
    f.check("b-1/0@0.1");
    f.append("a.jsonl", &line("a-1", 0));
    let lost =
        "PositionLost: resume in `/in/a.jsonl`: it is new, and sorts before `b.jsonl`, which is being read (remedy)";
    f.check(lost);
    f.reopen().check(lost);
    f.settings.on_replaced = OnReplaced::Restart;
    f.reopen().check("a-1/0@1.1");
    f.append("b.jsonl", &line("b-1", 1));
    f.check("b-1/1@2.2");
    f.reopen().check("");
}

#[test]
fn c2_lines_added_to_a_file_that_was_left_are_not_lost_silently() {
    let mut f = Fixture::new();
    f.append("a.jsonl", &line("a-1", 0));
    f.append("b.jsonl", &line("b-1", 0));
    f.check("a-1/0@0.1 b-1/0@1.1");
    f.append("a.jsonl", &line("a-1", 1));
    f.check("PositionLost: resume in `/in/a.jsonl`: lines were added to it after the next file was begun (remedy)");
    f.settings.on_replaced = OnReplaced::Restart;
    f.reopen().check("a-1/1@2.2");
}

/// Lines of equal length, so that a rewritten file looks like the old one at every offset.
fn lines(stream: &str, indexes: std::ops::Range<i64>) -> String {
    indexes.map(|index| line(stream, 100_000 + index)).collect()
}

#[test]
fn l6_a_file_with_the_same_first_bytes_is_another_file_if_later_bytes_differ() {
    let start = lines("a-1", 0..200);
    assert!(start.len() > 2 * proof::WINDOW, "the bytes that differ are in the middle");
    let old = start.clone() + &*lines("a-1", 200..400) + &*lines("a-1", 400..600);
    let new = start + &*lines("b-1", 200..400) + &*lines("a-1", 400..800);
    let lost = "PositionLost: resume in `/in/a.jsonl`: it was replaced by another file (remedy)";
    for in_directory in [false, true] {
        let mut f = Fixture::new();
        f.append("a.jsonl", &old);
        f.read().unwrap();
        if in_directory {
            f.append("b.jsonl", &line("z-1", 0));
            f.check("z-1/0@1.1");
        }
        // The same number of bytes, for a file that was left.
        f.replace("a.jsonl", if in_directory { &new[..old.len()] } else { &new });
        let expected = if in_directory { lost.replace("file (", "file after it was read (") } else { lost.to_owned() };
        f.check(&expected);
        f.reopen().check(&expected);
        f.settings.on_replaced = OnReplaced::Restart;
        let again = f.reopen().read().unwrap();
        assert!(again.iter().any(|event| show(event).starts_with("b-1/")), "the changed lines are read");
    }
}

#[test]
fn l6_a_compressed_file_is_compared_by_its_text() {
    let mut f = Fixture::new();
    let stored = |text: &str| {
        // Stored blocks: the text stands in the file as it is.
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let start = lines("a-1", 0..400);
    fs::write(f.path("a.jsonl.gz"), stored(&(start.clone() + &*lines("a-1", 400..500)))).unwrap();
    f.read().unwrap();
    fs::write(f.path("tmp"), stored(&(start + &*lines("b-1", 400..500)))).unwrap();
    fs::rename(f.path("tmp"), f.path("a.jsonl.gz")).unwrap();
    f.reopen().check("PositionLost: resume in `/in/a.jsonl.gz`: it was replaced by another file (remedy)");
}

#[test]
fn l7_a_file_rewritten_in_place_is_judged_before_any_of_its_bytes_count() {
    let other_head = "PositionLost: resume in `/in/a.jsonl`: its first bytes are not what they were (remedy)";
    let mut f = Fixture::new();
    f.append("a.jsonl", &lines("a-1", 0..3));
    assert_eq!(f.read().unwrap().len(), 3);
    // The writer starts over in the same file, and is already past the old end.
    fs::write(f.path("a.jsonl"), lines("a-1", 3..8)).unwrap();
    f.check(other_head);
    f.reopen().check(other_head);
    f.settings.on_replaced = OnReplaced::Restart;
    let indexes = |events: Vec<Event>| events.iter().map(|event| event.index() - 100_000).collect::<Vec<_>>();
    assert_eq!(indexes(f.reopen().read().unwrap()), [3, 4, 5, 6, 7]);
    fs::write(f.path("a.jsonl"), lines("a-1", 8..20)).unwrap();
    assert_eq!(indexes(f.read().unwrap()), Vec::from_iter(8..20), "in order, also without a restart of the process");
}

#[test]
fn l7_a_file_rewritten_in_the_middle_of_a_long_read_is_judged_before_any_of_its_bytes_count() {
    for on_replaced in [OnReplaced::Fail, OnReplaced::Restart] {
        let mut f = Fixture::new();
        f.settings.on_replaced = on_replaced;
        f.append("a.jsonl", &lines("a-1", 0..30_000));
        let first = f.read_once().unwrap();
        assert_eq!(first.end, LogEnd::More, "one read does not come to the end");
        fs::write(f.path("a.jsonl"), lines("b-1", 0..40_000)).unwrap();
        match f.read() {
            Err(error) => assert_eq!((error.kind, on_replaced), (SourceErrorKind::PositionLost, OnReplaced::Fail)),
            Ok(events) => {
                assert_eq!(on_replaced, OnReplaced::Restart);
                assert_eq!((show(&events[0]).as_str(), events.len()), ("b-1/100000@1.1", 40_000));
            }
        }
    }
}

#[test]
fn l7_a_change_behind_the_same_first_bytes_is_found_where_the_reader_stands() {
    let mut f = Fixture::new();
    let start = lines("a-1", 0..200);
    f.append("a.jsonl", &(start.clone() + &*lines("a-1", 200..400)));
    f.read().unwrap();
    fs::write(f.path("a.jsonl"), start + &*lines("b-1", 200..600)).unwrap();
    let lost = "PositionLost: resume in `/in/a.jsonl`: the bytes before the position are not what they were (remedy)";
    f.check(lost);
    f.reopen().check(lost);
}

#[test]
fn s20_entries_that_cannot_be_read_do_not_stop_the_feed() {
    use std::os::unix::ffi::OsStrExt;
    let mut f = Fixture::new();
    f.append("a.jsonl", &line("a-1", 0));
    for name in [&b"r\xe9sum.txt"[..], b".r\xe9.swp", b"r\xe9sum.jsonl"] {
        fs::write(f.path("").join(std::ffi::OsStr::from_bytes(name)), line("x-1", 0)).unwrap();
    }
    for (target, name) in [("loop.jsonl", "loop.jsonl"), ("nowhere", "gone.jsonl")] {
        std::os::unix::fs::symlink(target, f.path(name)).unwrap();
    }
    fs::create_dir(f.path("directory.jsonl")).unwrap();
    f.check("a-1/0@0.1");
    f.append("b.jsonl", &line("b-1", 0));
    f.reopen().check("b-1/0@1.1");
}

#[test]
fn s25_numbers_in_names_are_compared_by_value_on_request() {
    let mut f = Fixture::new();
    f.append("events-9.jsonl", &line("a-1", 0));
    f.check("a-1/0@0.1");
    let pair = Some(("events-10.jsonl".to_owned(), "events-9.jsonl".to_owned()));
    assert_eq!(misordered(&f.settings, f.directory.path()), pair, "the next file will be misplaced");
    f.append("events-10.jsonl", &line("a-1", 1));
    f.check(
        "PositionLost: resume in `/in/events-10.jsonl`: it is new, and sorts before `events-9.jsonl`, which is being \
         read; `sort = \"natural\"` in `[source.json]` compares the numbers in names by their value",
    );
    assert_eq!(misordered(&f.settings, f.directory.path()), pair);
    f.settings.sort = Sort::Natural;
    assert_eq!(misordered(&f.settings, f.directory.path()), None);
    f.reopen().check("a-1/1@1.1");
}
