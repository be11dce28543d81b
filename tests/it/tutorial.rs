//! The tutorial, run as it is written.

use crate::docs::{TUTORIAL, session::Session};
use crate::readme::page::Page;

#[test]
fn the_tutorial_runs_as_it_is_written() {
    Session::new(&Page::read(TUTORIAL)).run();
}
