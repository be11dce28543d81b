//! An environment that it cannot run in: exit code 3.

use std::net::TcpListener;

use expect_test::expect;

use super::{Case, check};

fn runs() -> Case {
    Case::toml("[source.json]\npath = \"events.jsonl\"\n[sink.null]\n").arguments(&["--until-tail", "--listen", "off"])
}

#[test]
fn data_folders_that_cannot_be() {
    check(
        runs().and("data", "a file"),
        expect![[r#"
            exit 3
            error: the data folder `data` is a file (set `data_dir` to a folder)
        "#]],
    );
    check(
        runs().and("data/propulsiond.lock/x", ""),
        expect![[r#"
            exit 3
            error: the data folder `data` cannot be written to: is a directory
        "#]],
    );
    check(
        runs().arguments(&["--until-tail", "--listen", "off", "--data-dir", "/proc/none"]),
        expect![[r#"
            exit 3
            error: cannot make the data folder `/proc/none`: no such file or directory
        "#]],
    );
}

#[test]
fn an_address_that_is_taken_or_nobodys() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let case = runs().arguments(&["--until-tail", "--listen", &address]);
    assert_eq!(
        case.run().replace(&address, "ADDRESS"),
        "exit 3\nerror: cannot listen on `ADDRESS`: address already in use (set `listen` to another address, or to \"off\")\n"
    );
    check(
        runs().arguments(&["--until-tail", "--listen", "203.0.113.1:1"]),
        expect![[r#"
            exit 3
            error: cannot listen on `203.0.113.1:1`: cannot assign requested address (set `listen` to another address, or to "off")
        "#]],
    );
}

#[test]
fn machines_are_told_as_well() {
    check(
        runs().and("data", "a file").arguments(&["--json", "--listen", "off"]),
        expect![[r#"
            exit 3
            [{"message":"the data folder `data` is a file (set `data_dir` to a folder)","severity":"error"}]
        "#]],
    );
}
