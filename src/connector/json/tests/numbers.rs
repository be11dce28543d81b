//! The numbers of files, and the positions that hold them (C1).

use super::*;

#[test]
fn c1_files_that_are_deleted_change_no_number() {
    let mut f = Fixture::new();
    f.append("a.jsonl", &line("a-1", 0));
    f.append("b.jsonl", &line("b-1", 0));
    f.check("a-1/0@0.1 b-1/0@1.1");
    fs::remove_file(f.path("a.jsonl")).unwrap();
    f.append("b.jsonl", &line("b-1", 1));
    f.reopen().check("b-1/1@1.2");
    fs::remove_file(f.path("b.jsonl")).unwrap();
    f.append("c.jsonl", &line("c-1", 0));
    f.check("c-1/0@2.1");
}

#[test]
fn c1_a_number_is_not_used_again_when_its_file_is_deleted_before_the_position_reached_it() {
    let mut f = Fixture::new();
    f.append("a.jsonl", &line("a-1", 0));
    f.check("a-1/0@0.1");
    let behind_a = f.position.clone();
    f.append("b.jsonl", &line("b-1", 0));
    f.check("b-1/0@1.1");
    f.position = behind_a.clone();
    f.reopen().check("b-1/0@1.1");
    fs::remove_file(f.path("b.jsonl")).unwrap();
    f.append("c.jsonl", &line("c-1", 0));
    f.position = behind_a;
    f.reopen().check("c-1/0@2.1");
    f.position = StartAt::Origin;
    f.reopen().check("a-1/0@0.1 c-1/0@2.1");
}

#[test]
fn the_last_file_of_a_directory_is_gone_until_it_is_back_or_another_follows() {
    let mut f = Fixture::new();
    f.append("a.jsonl", &line("a-1", 0));
    f.check("a-1/0@0.1");
    fs::rename(f.path("a.jsonl"), f.path("tmp")).unwrap();
    f.check("Unavailable: read `/in/a.jsonl`");
    fs::rename(f.path("tmp"), f.path("a.jsonl")).unwrap();
    f.append("a.jsonl", &line("a-1", 1));
    f.check("a-1/1@0.2");
    fs::remove_file(f.path("a.jsonl")).unwrap();
    f.check("Unavailable: read `/in/a.jsonl`");
    f.append("b.jsonl", &line("b-1", 0));
    f.check("b-1/0@1.1");
}

#[test]
fn a_missing_file_is_distinguished_from_a_deleted_one() {
    let mut f = Fixture::new();
    f.append("a.jsonl", &line("a-1", 0));
    f.check("a-1/0@0.1");
    fs::rename(f.path("a.jsonl"), f.path("tmp")).unwrap();
    f.reopen().check("Unavailable: open `/in/a.jsonl`");
    f.append("b.jsonl", &line("b-1", 0));
    f.reopen().check("PositionLost: resume in `/in/a.jsonl`: it was deleted; it had been read up to byte 48 (remedy)");
    fs::rename(f.path("tmp"), f.path("a.jsonl")).unwrap();
    f.check("b-1/0@1.1");
}

#[test]
fn a_position_is_readable_text_and_others_are_refused() {
    let mut f = Fixture::new();
    f.append("a.jsonl", &line("a-1", 0));
    f.append("b.jsonl", &line("b-1", 0));
    f.read().unwrap();
    let StartAt::Position(position) = &f.position else { panic!("something was read") };
    let text = position.to_string();
    assert!(text.starts_with(r#"{"file":"b.jsonl","number":1,"offset":48,"line":1,"inode":"#), "{text}");
    assert!(text.contains(r#""earlier":"1:"#), "{text}");
    assert_eq!(FilePosition::parse(position).unwrap().encode(), *position);
    for bad in [Position::Number(3), Position::token("x"), Position::token("{\"files\":1}")] {
        f.position = StartAt::Position(bad);
        assert_eq!(f.reopen().read().unwrap_err().kind, SourceErrorKind::PositionLost);
    }
}

/// Returns a fixture whose position is behind `a.jsonl`, while lines of `b.jsonl`, file 1, were handled as well.
fn ahead_of_its_position() -> Fixture {
    let mut f = Fixture::new();
    f.append("a.jsonl", &line("a-1", 0));
    f.check("a-1/0@0.1");
    let behind_a = f.position.clone();
    f.append("b.jsonl", &line("b-1", 0));
    f.check("b-1/0@1.1");
    f.position = behind_a;
    f.ahead = Some(Ahead { last: Ordinal::new(1 << 40 | 1, 0), read_to: None });
    f
}

#[test]
fn l5_numbers_belong_to_the_group_and_not_to_the_pipelines_name() {
    let mut f = ahead_of_its_position();
    f.ahead = None;
    f.pipeline = "renamed";
    f.reopen().check("b-1/0@1.1");
    let mut f = ahead_of_its_position();
    f.ahead = None;
    f.pipeline = "renamed";
    fs::remove_file(f.path("b.jsonl")).unwrap();
    f.append("c.jsonl", &line("c-1", 0));
    f.reopen().check("c-1/0@2.1");
}

#[test]
fn l5_a_new_file_gets_no_number_that_the_stored_set_covers_if_the_data_directory_is_lost() {
    let mut f = ahead_of_its_position();
    fs::remove_dir_all(f.directory.path().join("data")).unwrap();
    fs::remove_file(f.path("b.jsonl")).unwrap();
    f.append("c.jsonl", &line("c-1", 0));
    f.reopen().check("c-1/0@2.1");
    // The new registry goes on from there.
    f.append("d.jsonl", &line("d-1", 0));
    f.reopen().check("d-1/0@3.1");
}

#[test]
fn l5_the_registry_of_an_earlier_version_is_moved_to_its_group() {
    let mut f = ahead_of_its_position();
    f.ahead = None;
    let data = f.directory.path().join("data/json");
    // Earlier versions had no field `log`.
    let text = fs::read_to_string(data.join("g/0")).unwrap();
    let start = text.find("\"log\"").unwrap();
    let field = &text[start..start + text[start..].find(',').unwrap() + 1];
    fs::write(data.join("g/0"), text.replace(field, "")).unwrap();
    fs::rename(data.join("g"), data.join("p")).unwrap();
    fs::remove_file(f.path("b.jsonl")).unwrap();
    f.append("c.jsonl", &line("c-1", 0));
    f.reopen().check("c-1/0@2.1");
    assert!(!data.join("p/0").exists() && data.join("g/0").exists());
}

#[test]
fn l5_two_feeds_of_a_group_do_not_take_each_others_files() {
    let mut f = Fixture::new();
    f.append("a.jsonl", &line("a-1", 0));
    f.append("b.jsonl", &line("b-1", 0));
    f.check("a-1/0@0.1 b-1/0@1.1");
    let mut other = Fixture { directory: f.directory, ..Fixture::new() };
    fs::create_dir(other.directory.path().join("other")).unwrap();
    other.settings.path = Text::literal("other");
    for name in ["a.jsonl", "b.jsonl"] {
        fs::write(other.directory.path().join("other").join(name), line("o-1", 7)).unwrap();
    }
    other.check("o-1/7@0.1 o-1/7@1.1");
    other.reopen().check("");
}

#[test]
fn s16_a_position_does_not_grow_with_the_number_of_files() {
    let mut f = Fixture::new();
    let mut lengths = Vec::new();
    for number in 0..300 {
        f.append(&format!("{number:04}.jsonl"), &line("a-1", number));
        if number % 100 == 0 {
            f.read().unwrap();
            let StartAt::Position(position) = &f.position else { panic!("something was read") };
            lengths.push(position.to_string().len());
        }
    }
    assert!(lengths.iter().all(|length| *length < lengths[0] + 40), "{lengths:?}");
    // All of them are known after a restart, also without the registry.
    f.reopen().read().unwrap();
    fs::remove_dir_all(f.directory.path().join("data")).unwrap();
    f.reopen().check("");
    f.append("0010.a.jsonl", &line("a-1", 1_000));
    f.reopen().check(
        "PositionLost: resume in `/in/0000.jsonl`: the record of the files that were read before it is lost from the data directory, \
         and the files are not all as they were, so that it may be new (remedy)",
    );
}

#[test]
fn s16_a_change_to_an_earlier_file_is_found_without_the_registry() {
    let mut f = Fixture::new();
    f.append("a.jsonl", &line("a-1", 0));
    f.append("b.jsonl", &line("b-1", 0));
    f.check("a-1/0@0.1 b-1/0@1.1");
    fs::remove_dir_all(f.directory.path().join("data")).unwrap();
    f.append("a.jsonl", &line("a-1", 1));
    f.reopen().check(
        "PositionLost: resume in `/in/a.jsonl`: the record of the files that were read before it is lost from the data directory, \
         and the files are not all as they were, so that it may be new (remedy)",
    );
}

#[test]
fn s16_many_files_are_listed_a_bounded_number_of_times() {
    let mut f = Fixture::new();
    for number in 0..400 {
        f.append(&format!("{number:04}.jsonl"), &line("a-1", number));
    }
    assert_eq!(f.read().unwrap().len(), 400);
    let listings = f.log.as_ref().unwrap().listings();
    assert!(listings < 50, "{listings} listings for 400 files");
}

#[test]
fn c17_a_position_of_an_earlier_version_is_read() {
    let mut f = Fixture::new();
    f.append("a.jsonl", &line("a-1", 0));
    f.append("b.jsonl", &line("b-1", 0));
    f.check("a-1/0@0.1 b-1/0@1.1");
    let inode = |name: &str| std::os::unix::fs::MetadataExt::ino(&fs::metadata(f.path(name)).unwrap());
    let old = format!(
        r#"{{"file":"b.jsonl","number":1,"offset":48,"line":1,"inode":{},"head":"{}","past":[{{"file":"a.jsonl","inode":{},"size":48,"offset":48,"line":1,"head":"{}"}}]}}"#,
        inode("b.jsonl"),
        serde_json::to_string(&proof::PrefixHash::of(line("b-1", 0).as_bytes())).unwrap().trim_matches('"'),
        inode("a.jsonl"),
        serde_json::to_string(&proof::PrefixHash::of(line("a-1", 0).as_bytes())).unwrap().trim_matches('"'),
    );
    fs::remove_dir_all(f.directory.path().join("data")).unwrap();
    f.position = StartAt::Position(Position::token(old.as_str()));
    f.reopen().check("");
    f.append("b.jsonl", &line("b-1", 1));
    f.check("b-1/1@1.2");
    let StartAt::Position(position) = &f.position else { panic!("something was read") };
    assert!(!position.to_string().contains("past"), "{position}");
    f.append("a.jsonl", &line("a-1", 1));
    f.reopen()
        .check("PositionLost: resume in `/in/a.jsonl`: lines were added to it after the next file was begun (remedy)");
}

#[test]
fn r81_files_that_were_read_and_do_not_exist_any_more_are_named() {
    let mut f = Fixture::restarting();
    let vanished = |f: &Fixture| inspect::vanished(&f.settings, &f.context());
    assert_eq!(vanished(&f), [""; 0]);
    ["a.jsonl", "b.jsonl", "c.jsonl"].iter().for_each(|name| f.append(name, &line("a-1", 0)));
    f.read().unwrap();
    f.append("d.jsonl", &line("d-1", 0));
    assert_eq!(vanished(&f), [""; 0], "an unread file is no loss");

    // Another pipeline of the group has another feed.
    let mut other = Fixture::new();
    other.append("other.jsonl", &line("a-1", 0));
    other.read().unwrap();
    let of_other = fs::read(other.directory.path().join("data/json/g/0")).unwrap();
    let registry = f.directory.path().join("data/json/g/0");
    fs::File::options().append(true).open(registry).unwrap().write_all(&of_other).unwrap();
    assert_eq!(vanished(&f), [""; 0]);

    f.replace("c.jsonl", &fs::read_to_string(f.path("c.jsonl")).unwrap());
    f.reopen().read().unwrap();
    assert_eq!(vanished(&f), [""; 0], "a copy is the file that it is a copy of");
    f.replace("d.jsonl", &line("e-1", 0));
    f.reopen().read().unwrap();
    fs::remove_file(f.path("a.jsonl")).unwrap();
    assert_eq!(vanished(&f), ["the file `a.jsonl`", "the file `d.jsonl` before it was replaced"]);
}
