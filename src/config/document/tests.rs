use expect_test::expect;

use super::*;

fn document(text: &str) -> Document {
    Document::parse(Path::new("a.yaml"), text.to_owned(), Format::Yaml).unwrap()
}

#[test]
fn problems_point_at_values_keys_items_or_what_is_nearest() {
    let document = document("sink:\n  http:\n    url: x\n    codes: [1, 22]\n");
    let location =
        |problem: Problem| problem.location.map(|location| (location.line, location.column, location.span_len));
    assert_eq!(location(document.problem(&["sink", "http", "url"], "")), Some((3, 10, 1)));
    assert_eq!(location(document.problem_of_key(&["sink", "http", "url"], "")), Some((3, 5, 3)));
    assert_eq!(location(document.problem_of_item(&["sink", "http", "codes"], 1, "")), Some((4, 16, 2)));
    assert_eq!(location(document.problem_of_item(&["sink", "http", "codes"], 9, "")), Some((4, 5, 5)));
    assert_eq!(location(document.problem(&["sink", "http", "auth", "token"], "")), Some((2, 3, 4)));
    assert_eq!(location(document.problem(&["source"], "")), None);
    assert_eq!(document.line_of(&["sink", "http"]), Some(2));
}

#[test]
fn a_place_is_known_by_line_and_column_as_well() {
    let location = |line, column| {
        let location = Location::at("fn a() {\n  é + b\n}", line, column);
        (location.line, location.column, location.text)
    };
    assert_eq!(location(2, 5), (2, 5, "  é + b".to_owned()));
    assert_eq!(location(2, 99), (2, 8, "  é + b".to_owned()));
    assert_eq!(location(99, 99), (3, 2, "}".to_owned()));
    assert_eq!(location(0, 0), (1, 1, "fn a() {".to_owned()));
}

#[test]
fn json_has_the_fields_of_a_problem() {
    let problem = document("a: 1\n").problem(&["a"], "no").help("yes");
    expect![[r#"{"column":4,"file":"a.yaml","help":"yes","line":1,"message":"no","path":"a","severity":"error","span_len":1}"#]]
        .assert_eq(&problem.to_json().to_string());
    assert_eq!(problem.to_string(), "a.yaml:1:4: no");
    expect![[r#"{"column":null,"file":"a","help":null,"line":null,"message":"gone","path":null,"severity":"error","span_len":null}"#]]
        .assert_eq(&Problem::new(Path::new("a"), "gone").to_json().to_string());
}

#[test]
fn a_warning_differs_from_an_error() {
    let problem = document("a: 1\n").problem(&["a"], "no").as_warning();
    assert!(problem.render(Style::Plain).starts_with("warning: no\n"));
    assert!(problem.render(Style::Colour).contains("[33mwarning"));
    assert_eq!(problem.to_json()["severity"], "warning");
}

#[test]
fn a_terminal_shows_colours() {
    let problem = document("a: 1\n").problem(&["a"], "no").help("yes");
    expect![[r#"
        ESC[1mESC[91merrorESC[0mESC[1m: noESC[0m
         ESC[1mESC[94m--> ESC[0ma.yaml:1:4
          ESC[1mESC[94m|ESC[0m
        ESC[1mESC[94m1ESC[0m ESC[1mESC[94m|ESC[0m a: 1
          ESC[1mESC[94m|ESC[0m    ESC[1mESC[91m^ESC[0m ESC[1mESC[91maESC[0m
          ESC[1mESC[94m|ESC[0m
          ESC[1mESC[94m= ESC[0mESC[1mhelpESC[0m: yes
    "#]]
    .assert_eq(&problem.render(Style::Colour).replace('\u{1b}', "ESC"));
}
