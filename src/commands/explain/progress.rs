//! Where it is kept how far a pipeline is.

use super::subject::Subject;
use crate::connector::prose::sentences;

pub(super) fn progress(subject: &Subject<'_>) -> String {
    let store = &subject.store.place;
    let group = subject.spec().group.as_ref().map_or(subject.pipeline, |group| group.written());
    let source = subject.definition.written_source_id();
    let kept =
        format!("Its progress is kept {store}, for each tranche under the group `{group}` and the source `{source}`.");
    let begins = match !subject.source_is_durable() || !subject.progress_is_durable() {
        true => "",
        false => "Without stored progress it begins at the beginning.",
    };
    sentences([&*kept, &*when(subject), holds(subject), begins, fence(subject)])
}

fn when(subject: &Subject<'_>) -> String {
    if !subject.progress_is_durable() {
        return "It is gone with the process, and every start begins at the beginning.".to_owned();
    }
    let interval = subject.interval(&["schedule", "commit_interval"], subject.spec().schedule.commit_interval);
    if subject.sink_holds_progress() {
        return format!(
            "It is stored in each transaction that writes, and every {interval} where nothing is to be written but progress was made."
        );
    }
    format!("It is stored every {interval} while it changes, and when the pipeline stops.")
}

fn holds(subject: &Subject<'_>) -> &'static str {
    if subject.has_ordinals() {
        "Beside a position it holds which of the events behind that are handled, so one slow stream does not make a restart \
         repeat the others."
    } else {
        "It is a position alone, as this source gives events no places that last: behind an event that is not handled yet, what is handled is \
         not remembered."
    }
}

fn fence(subject: &Subject<'_>) -> &'static str {
    if !subject.progress_is_durable() {
        return "";
    }
    "One process at a time owns it: whoever claims it later fences this one, which then stores nothing more and says by whom."
}
