//! What a pipeline reads, which of it it takes, what decides and what is written.

use std::path::Path;

use super::voice::{Voice, counted, names, sentences, thousands};
use crate::config::scalar::Text;
use crate::connector::file::sink::Settings as FileSettings;
use crate::connector::{generate, http, json, memory};
use crate::formats::encode::Format;
use crate::spec::Stop;

pub(super) fn source(voice: &Voice<'_>) -> String {
    let source = &voice.spec.source;
    let reads = if let Some(settings) = &source.json {
        json(voice, settings)
    } else if let Some(settings) = &source.generate {
        generate(settings)
    } else if let Some(settings) = &source.memory {
        memory(voice, settings)
    } else {
        String::new()
    };
    let end = match voice.spec.stop {
        Stop::Never => "It never ends by itself: what is added is read as well.".to_owned(),
        Stop::Tail => "It ends once everything that is there is handled.".to_owned(),
        Stop::After(limit) => {
            format!("It ends {} after its start, whatever is left.", voice.duration(&["stop", "after"], limit))
        }
    };
    sentences([&*reads, &*end])
}

fn json(voice: &Voice<'_>, settings: &json::Settings) -> String {
    let written = settings.path.written();
    let beside = !Path::new(written).is_absolute() && !settings.path.has_references();
    let place = if beside { format!("`{written}` beside the pipeline's file") } else { format!("`{written}`") };
    let path = voice.loaded.folder().join(&*settings.path);
    let log = match settings.tranche_per_file {
        true => "each by itself and all at the same time",
        false if settings.sort == json::Sort::Natural => {
            "as one log, in the order of their names with numbers compared by value"
        }
        false => "as one log, in the order of their names",
    };
    let reads = if settings.path.is_hole() || !path.exists() {
        format!("It reads the file or folder {place}, a JSON object a line. The files of a folder are read {log}.")
    } else if path.is_dir() {
        format!("It reads the files of the folder {place}: {log}, a JSON object a line.")
    } else {
        format!("It reads the file {place}, a JSON object a line.")
    };
    let pattern = settings
        .pattern
        .as_ref()
        .map(|pattern| format!("Of a folder, the files named like `{}` are read.", pattern.written()));
    let skip = match settings.skip {
        0 => String::new(),
        1 => "The first line of each file is left out.".to_owned(),
        lines => format!("The first {} of each file are passed.", counted(lines, "line")),
    };
    let index = match settings.index {
        json::Index::Field => "Each line says the index of its event in its stream.",
        json::Index::Line => {
            "No line says an index: it is made of the number of the file and that of the line, so indexes grow but do not \
             follow each other."
        }
    };
    let replaced = match settings.on_replaced {
        json::OnReplaced::Fail => {
            "Where a file that was being read is replaced, cut short or gone, or one is added before it, the pipeline halts."
        }
        json::OnReplaced::Restart => {
            "A file that is replaced, cut short or added before the one being read is read from its start, as new events."
        }
    };
    sentences([&*reads, &*pattern.unwrap_or_default(), &*skip, index, replaced])
}

fn generate(settings: &generate::Settings) -> String {
    let rate = match settings.rate {
        Some(rate) => format!("{} a second", counted(rate.get(), "event")),
        None => "as fast as they are taken".to_owned(),
    };
    let count = match settings.count {
        Some(count) => format!("{} in all", thousands(count)),
        None => "without end".to_owned(),
    };
    let share = |share: f64, what: &str| match share > 0.0 {
        true => format!("{:.0} % of {what}.", share * 100.0),
        false => String::new(),
    };
    let tranches = match settings.tranches.get() {
        1 => String::new(),
        tranches => format!(", in {}", counted(tranches.into(), "tranche")),
    };
    sentences([
        &*format!(
            "It makes events up: {count}, {rate}, of {}{tranches}, the same ones in each run.",
            counted(settings.streams.get(), "stream")
        ),
        &*share(settings.duplicates, "them repeat an earlier one"),
        &*share(settings.gaps, "the indexes of a stream are missing"),
    ])
}

fn memory(voice: &Voice<'_>, settings: &memory::source::Settings) -> String {
    let index = match settings.index {
        memory::source::Index::Field => "Each says its index in its stream.",
        memory::source::Index::Arrival => {
            "None says an index: it is made of the time of arrival, so indexes grow but do not follow each other."
        }
    };
    let limit = format!(
        "At most {} wait, in {} of memory; more are refused until there is room.",
        counted(settings.max_events.get() as u64, "event"),
        voice.size(&["source", "memory", "max_bytes"], settings.max_bytes)
    );
    sentences([
        &*format!("It takes events that are posted to `/pipelines/{}/events`.", voice.loaded.name),
        index,
        &*limit,
    ])
}

pub(super) fn filter(voice: &Voice<'_>) -> String {
    let filter = &voice.spec.filter;
    let said = |entries: &[Text], word| names(entries.iter().map(Text::written), word);
    let of = |kinds: [(&[Text], &str); 2]| -> String {
        let kinds = kinds.iter().filter(|(entries, _)| !entries.is_empty());
        kinds.map(|(entries, which)| format!("{which} {}", said(entries, "or"))).collect::<Vec<_>>().join(", ")
    };
    let wanted = of([(&filter.categories, "in the category"), (&filter.streams, "with the name")]);
    let excluded = of([(&filter.exclude_categories, "in the category"), (&filter.exclude_streams, "with the name")]);
    let streams = match (wanted.is_empty(), excluded.is_empty()) {
        (true, true) => "all streams".to_owned(),
        (false, true) => format!("the streams {wanted}"),
        (true, false) => format!("all streams but those {excluded}"),
        (false, false) => format!("the streams {wanted}, but none {excluded}"),
    };
    let mut events = Vec::new();
    if !filter.events.is_empty() {
        events.push(format!("those of the type {}", said(&filter.events, "or")));
    }
    if !filter.exclude_events.is_empty() {
        events.push(format!("none of the type {}", said(&filter.exclude_events, "or")));
    }
    let takes = match (wanted.is_empty() && excluded.is_empty(), events.is_empty()) {
        (true, true) => "All streams and all events are taken.".to_owned(),
        (false, true) => format!("It takes {streams}, and all events of them."),
        (_, false) => format!("It takes {streams}, and of their events {}.", events.join(", but ")),
    };
    let system = match filter.system {
        true => "System streams, whose names begin with `$`, are taken as others are.",
        false => "System streams, whose names begin with `$`, are left out unless an entry names them with their `$`.",
    };
    sentences([&*takes, "What is left out counts as handled.", system])
}

pub(super) fn handler(voice: &Voice<'_>) -> String {
    let Some(rhai) = &voice.spec.handler.rhai else {
        return "There is none: the events themselves go to the sink.".to_owned();
    };
    let schedule = &voice.spec.schedule;
    let gets = match schedule.streams_per_call.get() {
        1 => "`handle` gets one stream and the next of its events".to_owned(),
        streams => {
            format!("`handle_batch` gets up to {} and the next events of each", counted(streams as u64, "stream"))
        }
    };
    format!(
        "The script `{}` decides: {gets}. What it emits reaches the sink once the call has ended well, and never if it fails. A \
         call that takes longer than {} has failed.",
        rhai.script.written(),
        voice.duration(&["handler", "rhai", "timeout"], rhai.timeout)
    )
}

pub(super) fn sink(voice: &Voice<'_>) -> String {
    let sink = &voice.spec.sink;
    let effects = voice.effects();
    if let Some(sqlite) = &sink.sqlite {
        let path = sqlite.path.written();
        return match voice.has_script() {
            true => format!(
                "The SQL statements that the script emits are run on the SQLite file `{path}` of the data directory."
            ),
            false => format!(
                "The events are kept in the table `{}` of the SQLite file `{path}` of the data directory.",
                sqlite.table.written()
            ),
        };
    }
    if let Some(http) = &sink.http {
        return self::http(voice, http);
    }
    if let Some(file) = &sink.file {
        return self::file(voice, file);
    }
    if let Some(stdout) = &sink.stdout {
        return format!("{} Lines leave whole.", lines(voice, "to standard output", stdout.format));
    }
    if let Some(stats) = &sink.stats {
        let interval = voice.interval(&["sink", "stats", "interval"], stats.interval);
        return format!(
            "It counts {effects} by category and type and logs the counts every {interval}. Nothing is written elsewhere."
        );
    }
    if sink.null.is_some() {
        return format!(
            "There is none to speak of: {effects} go{} nowhere.",
            if voice.has_script() { "es" } else { "" }
        );
    }
    "There is none: what the script emits goes nowhere.".to_owned()
}

fn lines(voice: &Voice<'_>, to: &str, format: Format) -> String {
    match (voice.has_script(), format) {
        (true, Format::Text) => {
            format!(
                "It writes a line {to} for each value that the script emits: strings as they are, all else as JSON."
            )
        }
        (true, Format::Json) => format!("It writes a line of JSON {to} for each value that the script emits."),
        (false, _) => format!("It writes a line of JSON {to} for each event."),
    }
}

fn file(voice: &Voice<'_>, settings: &FileSettings) -> String {
    let path = match &settings.path {
        Some(path) => path.written().to_owned(),
        None => format!("{}.jsonl", voice.loaded.name),
    };
    let per = match settings.path.as_ref().is_some_and(|path| !path.is_literal()) {
        true => " There is a file for each value of what stands in braces.",
        false => "",
    };
    format!("{}{per}", lines(voice, &format!("at the end of the file `{path}` of the data directory"), settings.format))
}

fn http(voice: &Voice<'_>, settings: &http::Settings) -> String {
    let what = match (voice.has_script(), settings.per) {
        (true, _) => "each value that the script emits",
        (false, http::Per::Event) => "each event",
        (false, http::Per::Span) => "each run of events of one stream",
    };
    // The query of a url may hold a key.
    let url = settings.url.written();
    let url = if settings.url.has_references() { url } else { url.split('?').next().unwrap_or(url) };
    let path = settings.path.as_ref().map(|path| format!(", with the path `{}` behind it", path.written()));
    let key = match (voice.has_script(), settings.per) {
        (false, http::Per::Event) => {
            "Its idempotency key is made of the event's stream and index, so a repeat has the same one."
        }
        _ => {
            "Its idempotency key is made of the stream and of the indexes of the events that were offered together; a repeat has \
             the same one if the same events are offered together again."
        }
    };
    format!(
        "It sends a {} request to `{url}`{} for {what}, and waits at most {} for its answer. {key}",
        settings.method.written(),
        path.unwrap_or_default(),
        voice.duration(&["sink", "http", "timeout"], settings.timeout)
    )
}
