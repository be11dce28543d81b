//! Lines that were handled ahead of the position: the files must be the same up to there (C2).

use super::*;

impl Fixture {
    /// Handles everything that was read since `position`, except at least one line.
    fn handle_ahead_of(&mut self, position: StartAt, last: Ordinal) {
        let StartAt::Position(read_to) = self.position.clone() else { panic!("something was read") };
        self.ahead = Some(Ahead { last, read_to: Some(read_to) });
        self.position = position;
    }

    fn rewrite(&self, name: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.path(name)).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(self.path(name), text.replace(from, to)).unwrap();
    }
}

/// Returns a fixture at its origin with three lines in a file, of which the first one is not handled.
fn at_its_origin() -> Fixture {
    let mut f = Fixture::new();
    f.append("a.jsonl", &(line("a-1", 0) + &*line("a-2", 0) + &*line("a-3", 0)));
    f.check("a-1/0@0.1 a-2/0@0.2 a-3/0@0.3");
    f.handle_ahead_of(StartAt::Origin, Ordinal::new(3, 0));
    f
}

/// Returns a fixture behind `a.jsonl`, with handled lines in `c.jsonl`.
fn behind_its_first_file() -> Fixture {
    let mut f = Fixture::new();
    f.append("a.jsonl", &line("a-1", 0));
    f.check("a-1/0@0.1");
    let behind_a = f.position.clone();
    f.append("b.jsonl", &line("b-1", 0));
    f.append("c.jsonl", &line("c-1", 0));
    f.check("b-1/0@1.1 c-1/0@2.1");
    f.handle_ahead_of(behind_a, Ordinal::new(2 << 40 | 1, 0));
    f
}

const FIRST_BYTES: &str = "PositionLost: resume in `/in/a.jsonl`: its first bytes are not what they were (remedy); lines up to `a.jsonl` line 3 \
    were handled ahead of the position";

#[test]
fn c2_a_copy_of_a_file_keeps_its_number_at_the_origin() {
    let mut f = at_its_origin();
    let text = fs::read_to_string(f.path("a.jsonl")).unwrap();
    let ahead = f.ahead.clone();
    for data_directory_is_lost in [false, true] {
        f.replace("a.jsonl", &text);
        if data_directory_is_lost {
            fs::remove_dir_all(f.directory.path().join("data")).unwrap();
        }
        (f.position, f.ahead) = (StartAt::Origin, ahead.clone());
        f.reopen().check("a-1/0@0.1 a-2/0@0.2 a-3/0@0.3");
        // The copy is known from now on.
        (f.position, f.ahead) = (StartAt::Origin, None);
        f.reopen().check("a-1/0@0.1 a-2/0@0.2 a-3/0@0.3");
    }
}

#[test]
fn c2_a_copied_directory_keeps_its_numbers_ahead_of_the_position() {
    let mut f = behind_its_first_file();
    for name in ["a.jsonl", "b.jsonl", "c.jsonl"] {
        let text = fs::read_to_string(f.path(name)).unwrap();
        f.replace(name, &text);
    }
    f.reopen().check("b-1/0@1.1 c-1/0@2.1");
}

#[test]
fn c2_a_handled_line_that_changed_is_position_lost() {
    let mut f = at_its_origin();
    // The failing line is removed in place, so that a new line would get the number of a handled one.
    f.rewrite("a.jsonl", &line("a-1", 0), "");
    f.append("a.jsonl", &(line("a-4", 0) + &*line("a-5", 0)));
    f.reopen().check(FIRST_BYTES);
    f.reopen().check(FIRST_BYTES);
    // The same in another file under its name.
    let text = fs::read_to_string(f.path("a.jsonl")).unwrap();
    f.replace("a.jsonl", &text);
    f.reopen().check(&FIRST_BYTES.replace("its first bytes are not what they were", "it was replaced by another file"));
}

#[test]
fn c2_a_file_with_changed_lines_ahead_is_read_again_under_a_new_number_on_request() {
    let mut f = at_its_origin();
    f.rewrite("a.jsonl", &line("a-1", 0), "");
    f.settings.on_replaced = OnReplaced::Restart;
    f.reopen().check("a-2/0@1.1 a-3/0@1.2");
    // It keeps that number, although the registry knows the old one.
    (f.position, f.ahead) = (StartAt::Origin, None);
    f.reopen().check("a-2/0@1.1 a-3/0@1.2");
}

#[test]
fn c2_files_between_the_position_and_the_last_handled_line_are_compared() {
    let ahead = "; lines up to `c.jsonl` line 1 were handled ahead of the position";
    let mut f = behind_its_first_file();
    f.rewrite("b.jsonl", &line("b-1", 0), &(line("b-1", 0) + &*line("b-1", 1)));
    f.reopen().check(&format!(
        "PositionLost: resume in `/in/b.jsonl`: lines were added to it after the next file was begun (remedy){ahead}"
    ));
    let mut f = behind_its_first_file();
    f.append("b2.jsonl", &line("b-2", 0));
    f.reopen().check(&format!(
        "PositionLost: resume in `/in/b2.jsonl`: it is new, and sorts before `c.jsonl`, which is being read (remedy){ahead}"
    ));
    let mut f = behind_its_first_file();
    fs::remove_file(f.path("c.jsonl")).unwrap();
    f.reopen().check(&format!(
        "PositionLost: resume in `/in/c.jsonl`: it was deleted; it had been read up to byte 48 (remedy){ahead}"
    ));
}

#[test]
fn c2_lines_behind_the_last_handled_one_may_change() {
    let mut f = at_its_origin();
    f.append("a.jsonl", &line("a-4", 0));
    f.append("b.jsonl", &line("b-1", 0));
    f.reopen().check("a-1/0@0.1 a-2/0@0.2 a-3/0@0.3 a-4/0@0.4 b-1/0@1.1");
}
