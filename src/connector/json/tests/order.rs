//! Positions of two groups, compared.

use std::cmp::Ordering;

use super::*;

#[test]
fn positions_of_groups_that_number_the_files_differently_compare_by_file_and_offset() {
    let mut f = Fixture::new();
    f.append("a.jsonl", &line("a-1", 0));
    f.append("b.jsonl", &line("a-1", 1));
    let positions = |f: &mut Fixture| -> Vec<Position> {
        let mut positions = Vec::new();
        loop {
            let read = f.read_once().unwrap();
            let read_some = read.batches.iter().filter(|batch| !batch.events.is_empty());
            positions.extend(read_some.map(|batch| batch.resume_at.clone()));
            if read.end == LogEnd::Tail {
                return positions;
            }
        }
    };
    let first = positions(&mut f);
    fs::remove_file(f.path("a.jsonl")).unwrap();
    f.append("b.jsonl", &line("a-1", 2));
    let context = Context { group: "later".into(), ..f.context() };
    let source = source(&f.settings, &context, false).unwrap();
    let mut later = Log::new(Arc::clone(&source.options), None, &StartAt::Origin, None).unwrap();
    let end = later.read().unwrap().batches.last().unwrap().resume_at.clone();
    assert_eq!(FilePosition::parse(&end).unwrap().number, 0, "the later group knows one file");
    let compare = |one: &Position, other: &Position| source.compare(one, other);
    assert_eq!(compare(&first[0], &end), Some(Ordering::Less), "another file has the same number");
    assert_eq!(compare(&first[1], &end), Some(Ordering::Less));
    assert_eq!(compare(&end, &first[1]), Some(Ordering::Greater));
    assert_eq!(compare(&end, &end), Some(Ordering::Equal));
    assert_eq!(compare(&FilePosition::default().encode(), &first[0]), Some(Ordering::Less), "the start of a directory");
    assert_eq!(compare(&Position::Number(1), &end), None);
}
