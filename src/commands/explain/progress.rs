//! The place and the form of a pipeline's progress.

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
        false => "Without progress it starts at the origin.",
    };
    sentences([&*kept, &*when(subject), holds(subject), begins, fence(subject)])
}

fn when(subject: &Subject<'_>) -> String {
    if !subject.progress_is_durable() {
        return "It is lost with the process, and every start begins at the origin.".to_owned();
    }
    let interval = subject.interval(&["schedule", "commit_interval"], subject.spec().schedule.commit_interval);
    if subject.sink_holds_progress() {
        return format!(
            "It is committed in each transaction with effects, and every {interval} if there was progress without effects."
        );
    }
    format!("It is committed every {interval} while it changes, and when the pipeline stops.")
}

fn holds(subject: &Subject<'_>) -> &'static str {
    if subject.has_ordinals() {
        "It consists of a position and the set of handled events beyond it, so that one slow stream does not make a restart \
         repeat the others."
    } else {
        "It is a position alone, because the events of this source have no ordinals. A restart repeats events that were handled \
         beyond an unhandled one."
    }
}

fn fence(subject: &Subject<'_>) -> &'static str {
    if !subject.progress_is_durable() {
        return "";
    }
    "One process at a time owns it: a later claim fences this process, which stops committing and names the new owner."
}
