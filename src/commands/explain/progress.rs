//! Where it is kept how far a pipeline is.

use super::voice::{Voice, names, sentences};
use crate::connector::{file, sqlite};
use crate::spec::{Checkpoint, CheckpointSpec};

pub(super) fn progress(voice: &Voice<'_>) -> String {
    let store = store(voice);
    let group = voice.spec.group.as_ref().map_or(&*voice.loaded.name, |group| group.written());
    let source = match &voice.spec.source_id {
        Some(id) => id.written(),
        None => voice.loaded.source_id(),
    };
    let kept =
        format!("Its progress is kept {store}, for each tranche under the group `{group}` and the source `{source}`.");
    let begins = match voice.source_is_in_memory() || voice.progress_is_in_memory() {
        true => "",
        false => "Without stored progress it begins at the beginning.",
    };
    sentences([&*kept, &*when(voice), holds(voice), begins, fence(voice)])
}

/// Says in what the progress is.
pub(super) fn store(voice: &Voice<'_>) -> String {
    let store = match &voice.spec.checkpoint {
        Checkpoint::Sink => {
            let path = voice.spec.sink.sqlite.as_ref().map(|sqlite| sqlite.path.written()).unwrap_or_default();
            return format!("by the sink, in {} of the data directory", names([path], "and"));
        }
        Checkpoint::Store(store) => store,
    };
    match store {
        CheckpointSpec { memory: Some(_), .. } => "in memory".to_owned(),
        CheckpointSpec { file: Some(file::store::Settings { path }), .. } => {
            format!("in the folder `{}` of the data directory", path.written())
        }
        store => {
            let default = sqlite::CheckpointSettings::default();
            let path = &store.sqlite.as_ref().unwrap_or(&default).path;
            format!("in the SQLite file `{}` of the data directory", path.written())
        }
    }
}

fn when(voice: &Voice<'_>) -> String {
    if voice.progress_is_in_memory() {
        return "It is gone with the process, and every start begins at the beginning.".to_owned();
    }
    let interval = voice.interval(&["schedule", "commit_interval"], voice.spec.schedule.commit_interval);
    if voice.sink_holds_progress() {
        return format!(
            "It is stored in each transaction that writes, and every {interval} where nothing is to be written but progress was made."
        );
    }
    format!("It is stored every {interval} while it changes, and when the pipeline stops.")
}

fn holds(voice: &Voice<'_>) -> &'static str {
    if voice.spec.contract().ordinals {
        "Beside a position it holds which of the events behind that are handled, so one slow stream does not make a restart \
         repeat the others."
    } else {
        "It is a position alone, as this source gives events no places that last: behind an event that is not handled yet, what is handled is \
         not remembered."
    }
}

fn fence(voice: &Voice<'_>) -> &'static str {
    if voice.progress_is_in_memory() {
        return "";
    }
    "One process at a time owns it: whoever claims it later fences this one, which then stores nothing more and says by whom."
}
