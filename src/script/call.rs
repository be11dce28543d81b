//! The call that runs on this thread: its streams, events and decisions.
//!
//! A script's `stream`, `events` and `e` are small handles into the [`Call`], which converts values when the script reads
//! them. A handle carries the generation of its call. A handle kept for a later call is therefore an error, and never
//! another call's event.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use rhai::{Dynamic, EvalAltResult, ImmutableString, Map, Position};

use super::intern::Interner;
use super::json::{self, FieldTable};
use super::upcast::Newest;
use crate::clock::{Clock, Timestamp};
use crate::effect::Value;
use crate::event::Event;
use crate::handler::{HandlerError, HandlerErrorKind};
use crate::work::{Work, cut_before};

pub(super) type Failure = Box<EvalAltResult>;

thread_local! {
    static CALL: RefCell<Call> = RefCell::new(Call::new());
}

/// Runs `f` on the call of this thread.
pub(super) fn current<R>(f: impl FnOnce(&mut Call) -> R) -> R {
    CALL.with_borrow_mut(f)
}

/// An error of the API, thrown as a value so that its kind survives the way through rhai.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub(super) kind: HandlerErrorKind,
    pub(super) message: String,
    pub(super) index: Option<i64>,
}

/// Returns the permanent error for a wrong use of an API function.
pub(super) fn misuse(message: impl Into<String>) -> Failure {
    thrown(Fault { kind: HandlerErrorKind::Permanent, message: message.into(), index: None })
}

pub(super) fn thrown(fault: Fault) -> Failure {
    EvalAltResult::ErrorRuntime(Dynamic::from(fault), Position::NONE).into()
}

/// The result of a script for a stream, as `done`, `upto`, `defer` and `malformed` make it.
#[derive(Clone, Debug)]
pub(super) enum ScriptResult {
    Done { tag: Option<Arc<str>> },
    Upto { next: i64, tag: Option<Arc<str>> },
    Defer(Duration),
    Malformed { why: String, index: Option<i64> },
}

/// The number of a stream or of an event slot in a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Handle {
    pub(super) place: u32,
    generation: u32,
}

/// A stream of the call, and the decisions about it so far.
#[derive(Default)]
pub(super) struct Span {
    /// The events of the work, which the call borrows until it ends.
    events: Vec<Event>,
    /// The slot of the first offered event.
    first: usize,
    /// The number of offered events. The slots of the others come after them.
    offered: usize,
    pub(super) effects: Vec<Value>,
    pub(super) verdict: Option<ScriptResult>,
    pub(super) failure: Option<HandlerError>,
}

/// The parts of an event that the script has read.
#[derive(Default)]
struct Slot {
    /// The stream of the event, and the position of the event in it.
    span: u32,
    offset: u32,
    /// The type that `upcast` gave the event.
    event_type: Option<ImmutableString>,
    data: Body,
    meta: Body,
}

/// A JSON document of an event.
#[derive(Default)]
struct Body {
    state: BodyState,
    table: FieldTable,
}

#[derive(Default)]
enum BodyState {
    #[default]
    Unread,
    /// An object, whose fields are in the table.
    Object,
    /// The object that `upcast` made.
    Made(Map),
    /// Any other value, converted.
    Plain(Dynamic),
}

/// The name of a document of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Data,
    Meta,
}

/// A document of an event as a script gets it.
pub(super) enum Seen {
    Object,
    Plain(Dynamic),
}

pub(super) struct Call {
    generation: u32,
    spans: Vec<Span>,
    slots: Vec<Slot>,
    used: usize,
    pub(super) is_batch: bool,
    /// `upcast` runs, which decides nothing.
    pub(super) is_upcasting: bool,
    /// The slot of the event that the script read last.
    looked_at: Option<usize>,
    /// The bytes of the effects of this call.
    pub(super) emitted_bytes: usize,
    /// The bytes of the values that `upcast` made.
    upcast_bytes: usize,
    started: Option<Timestamp>,
    pub(super) texts: Interner<Arc<str>>,
    names: Interner<ImmutableString>,
}

/// The state that reads of events and conversions of values change.
#[derive(Clone, Copy)]
pub(super) struct Trace {
    looked_at: Option<usize>,
    emitted_bytes: usize,
}

/// The number of slots kept between calls. A call with more events frees the others.
const KEPT_SLOTS: usize = 1_024;

impl Call {
    fn new() -> Self {
        Self {
            generation: 0,
            spans: Vec::new(),
            slots: Vec::new(),
            used: 0,
            is_batch: false,
            is_upcasting: false,
            looked_at: None,
            emitted_bytes: 0,
            upcast_bytes: 0,
            started: None,
            texts: Interner::new(),
            names: Interner::new(),
        }
    }

    /// Begins a call over `streams`, and borrows their events until it ends.
    ///
    /// Cloning the events would cost more than most scripts, as the reference count of a batch is shared between threads.
    pub(super) fn begin(&mut self, streams: &mut [Work], is_batch: bool) {
        self.clear();
        self.spans.clear();
        self.is_batch = is_batch;
        for (span, work) in streams.iter_mut().enumerate() {
            let events = std::mem::take(&mut work.events);
            let first = self.used;
            self.used += events.len();
            if self.used > self.slots.len() {
                self.slots.resize_with(self.used, Slot::default);
            }
            for (offset, slot) in self.slots[first..self.used].iter_mut().enumerate() {
                (slot.span, slot.offset) = (span as u32, offset as u32);
            }
            self.spans.push(Span { offered: events.len(), events, first, ..Span::default() });
        }
    }

    /// Ends the call of one stream. Gives its events back, and returns the decisions about it.
    pub(super) fn end_single(&mut self, work: &mut Work) -> Span {
        self.clear();
        let mut span = self.spans.pop().unwrap_or_default();
        work.events = std::mem::take(&mut span.events);
        span
    }

    /// Ends the call. Gives the events back, and returns the decisions about its streams.
    pub(super) fn end_batch(&mut self, streams: &mut [Work]) -> Vec<Span> {
        self.clear();
        let mut spans = std::mem::take(&mut self.spans);
        for (work, span) in streams.iter_mut().zip(&mut spans) {
            work.events = std::mem::take(&mut span.events);
        }
        spans
    }

    /// Forgets the converted values of the call, and invalidates its handles.
    pub(super) fn clear(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        for slot in &mut self.slots[..self.used] {
            slot.event_type = None;
            slot.data.clear();
            slot.meta.clear();
        }
        self.slots.truncate(KEPT_SLOTS);
        self.used = 0;
        self.looked_at = None;
        (self.emitted_bytes, self.upcast_bytes) = (0, 0);
        self.is_upcasting = false;
        self.started = None;
    }

    /// Returns the state that reads of events and conversions of values change.
    pub(super) fn trace(&self) -> Trace {
        Trace { looked_at: self.looked_at, emitted_bytes: self.emitted_bytes }
    }

    /// Undoes reads and conversions.
    pub(super) fn restore(&mut self, trace: Trace) {
        (self.looked_at, self.emitted_bytes) = (trace.looked_at, trace.emitted_bytes);
    }

    /// Returns whether the call has run for longer than `limit`. The first query starts the clock, so that short calls never
    /// read the time.
    pub(super) fn is_overdue(&mut self, clock: &Clock, limit: Duration) -> bool {
        let now = clock.now();
        now.since(*self.started.get_or_insert(now)) > limit
    }

    pub(super) fn handle(&self, place: usize) -> Handle {
        Handle { place: place as u32, generation: self.generation }
    }

    pub(super) fn spans(&self) -> impl Iterator<Item = Handle> {
        (0..self.spans.len()).map(|place| self.handle(place))
    }

    pub(super) fn span(&mut self, handle: Handle) -> Result<&mut Span, Failure> {
        self.check(handle)?;
        Ok(&mut self.spans[handle.place as usize])
    }

    /// Returns the only stream of a call of `handle`.
    pub(super) fn single(&mut self, doing: &str) -> Result<&mut Span, Failure> {
        if self.is_upcasting {
            return Err(misuse(format!("`upcast` decides nothing: call `{doing}` in `handle` or `handle_event`")));
        }
        match (self.is_batch, self.spans.first_mut()) {
            (false, Some(span)) => Ok(span),
            (true, _) => Err(misuse(format!("name the stream: in `handle_batch` write `span.{doing}`"))),
            (false, None) => Err(misuse(format!("`{doing}` works only during a call of `handle`"))),
        }
    }

    /// Returns the handle of event `position` of a stream. Negative positions count from the end.
    pub(super) fn event_of(&mut self, span: Handle, position: i64) -> Result<Option<Handle>, Failure> {
        let Span { first, offered: len, .. } = *self.span(span)?;
        let from_start = if position < 0 { position + len as i64 } else { position };
        let Some(offset) = usize::try_from(from_start).ok().filter(|offset| *offset < len) else {
            return Ok(None);
        };
        self.looked_at = Some(first + offset);
        Ok(Some(self.handle(first + offset)))
    }

    pub(super) fn events_in(&mut self, span: Handle) -> Result<usize, Failure> {
        self.span(span).map(|span| span.offered)
    }

    /// Moves the event at `position` of a stream to position `kept`. The events between them are not offered.
    pub(super) fn keep(&mut self, span: Handle, position: usize, kept: usize) {
        let first = self.spans[span.place as usize].first;
        self.slots.swap(first + kept, first + position);
    }

    /// Offers only the first `kept` events of a stream.
    pub(super) fn offer(&mut self, span: Handle, kept: usize) {
        self.spans[span.place as usize].offered = kept;
    }

    /// Offers, of the first `kept` events of a stream, those before its event `position`. Returns the index of the first event
    /// that is not handled; `None` as [`cut_before`] does.
    pub(super) fn offer_before(&mut self, span: Handle, kept: usize, position: usize) -> Option<i64> {
        let span = &mut self.spans[span.place as usize];
        let (events, next) = cut_before(&span.events, position)?;
        let kept = &self.slots[span.first..][..kept];
        span.offered = kept.partition_point(|slot| (slot.offset as usize) < events);
        Some(next)
    }

    /// Returns the index that names an event of a stream.
    pub(super) fn index_at(&self, span: Handle, position: usize) -> i64 {
        index_at(&self.spans[span.place as usize].events, position)
    }

    /// Replaces the fields of an event that `upcast` changed. `limit` bounds the bytes of all replaced fields of the call.
    pub(super) fn replace(&mut self, event: Handle, newest: Newest, limit: usize) -> Result<(), Failure> {
        self.check(event)?;
        self.upcast_bytes += newest.bytes;
        if self.upcast_bytes > limit {
            return Err(misuse("the upcast events of this call exceed `limits.memory_bytes`"));
        }
        let slot = &mut self.slots[event.place as usize];
        slot.event_type = newest.event_type;
        for (body, value) in [(&mut slot.data, newest.data), (&mut slot.meta, newest.meta)] {
            if let Some(value) = value {
                body.replace(value);
            }
        }
        Ok(())
    }

    pub(super) fn event(&mut self, handle: Handle) -> Result<&Event, Failure> {
        self.check(handle)?;
        self.looked_at = Some(handle.place as usize);
        Ok(self.at(handle.place as usize))
    }

    /// Returns the event of a slot in use.
    fn at(&self, place: usize) -> &Event {
        let slot = &self.slots[place];
        &self.spans[slot.span as usize].events[slot.offset as usize]
    }

    /// Returns the first event of a stream, which names it.
    pub(super) fn first_event(&mut self, span: Handle) -> Result<&Event, Failure> {
        Ok(&self.span(span)?.events[0])
    }

    /// Returns the event that an error message names: the one read last, or else the first.
    pub(super) fn suspect(&self) -> Option<&Event> {
        let place = self.looked_at.unwrap_or(0);
        (place < self.used).then(|| self.at(place))
    }

    /// Returns the stream of an event.
    pub(super) fn span_of(&self, event: Handle) -> Handle {
        let span = self.slots.get(event.place as usize).map_or(0, |slot| slot.span);
        Handle { place: span, generation: event.generation }
    }

    /// Returns the type of an event. Equal types share a string.
    pub(super) fn event_type(&mut self, handle: Handle) -> Result<ImmutableString, Failure> {
        self.check(handle)?;
        self.looked_at = Some(handle.place as usize);
        let slot = &self.slots[handle.place as usize];
        if let Some(event_type) = &slot.event_type {
            return Ok(event_type.clone());
        }
        let event = &self.spans[slot.span as usize].events[slot.offset as usize];
        Ok(self.names.get(event.event_type()))
    }

    /// Reads a document of an event on first use.
    pub(super) fn document(&mut self, handle: Handle, part: Part) -> Result<Seen, Failure> {
        self.with_body(handle, part, |body, bytes, event| {
            if let BodyState::Unread = body.state {
                body.read(bytes).map_err(|why| not_json(event, part, &why))?;
            }
            Ok(match &body.state {
                BodyState::Plain(value) => Seen::Plain(value.clone()),
                _ => Seen::Object,
            })
        })
    }

    /// Returns a field of a document of an event.
    pub(super) fn field(&mut self, handle: Handle, part: Part, name: &str) -> Result<Option<Dynamic>, Failure> {
        self.with_body(handle, part, |body, bytes, event| match &body.state {
            BodyState::Made(map) => Ok(map.get(name).cloned()),
            _ => body.table.get(bytes, name).map_err(|why| not_json(event, part, &why)),
        })
    }

    /// Converts a whole document of an event.
    pub(super) fn whole(&mut self, handle: Handle, part: Part) -> Result<Dynamic, Failure> {
        self.with_body(handle, part, |body, bytes, event| match &body.state {
            BodyState::Made(map) => Ok(map.clone().into()),
            _ => json::parse(bytes).map_err(|why| not_json(event, part, &why)),
        })
    }

    fn with_body<R>(
        &mut self,
        handle: Handle,
        part: Part,
        f: impl FnOnce(&mut Body, &[u8], &Event) -> Result<R, Failure>,
    ) -> Result<R, Failure> {
        self.check(handle)?;
        self.looked_at = Some(handle.place as usize);
        let slot = &mut self.slots[handle.place as usize];
        let event = &self.spans[slot.span as usize].events[slot.offset as usize];
        let (body, bytes) = match part {
            Part::Data => (&mut slot.data, event.data()),
            Part::Meta => (&mut slot.meta, event.meta()),
        };
        f(body, bytes, event)
    }

    fn check(&self, handle: Handle) -> Result<(), Failure> {
        if handle.generation == self.generation {
            return Ok(());
        }
        Err(misuse("an event or stream was used after its call"))
    }
}

impl Body {
    fn read(&mut self, bytes: &[u8]) -> Result<(), String> {
        let trimmed = bytes.trim_ascii_start();
        if trimmed.starts_with(b"{") {
            self.table.read(bytes)?;
            self.state = BodyState::Object;
        } else if trimmed.is_empty() {
            self.state = BodyState::Plain(Dynamic::UNIT);
        } else {
            self.state = BodyState::Plain(json::parse(bytes)?);
        }
        Ok(())
    }

    fn replace(&mut self, value: Dynamic) {
        self.state = match value.try_cast_result::<Map>() {
            Ok(map) => BodyState::Made(map),
            Err(value) => BodyState::Plain(value),
        };
    }

    fn clear(&mut self) {
        self.state = BodyState::Unread;
        self.table.clear();
    }
}

/// Returns the index that names an event in an error. An unfold has none of its own, and fails with the event before it.
pub(super) fn index_at(events: &[Event], position: usize) -> i64 {
    let named = if events[position].is_unfold() { &events[0] } else { &events[position] };
    named.index()
}

/// Returns the error for a malformed document. It names the event by its index (C19, R32).
fn not_json(event: &Event, part: Part, why: &str) -> Failure {
    let part = match part {
        Part::Data => "data",
        Part::Meta => "meta",
    };
    thrown(Fault {
        kind: HandlerErrorKind::Malformed,
        message: format!("its `{part}` is not usable JSON: {why}"),
        index: Some(event.index()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Assembler, Kind};
    use crate::position::Ordinal;
    use crate::work::{WorkId, WorkKind};

    #[test]
    fn a_handle_leads_nowhere_after_its_call() {
        let event = Assembler::new("order-1", "A").build(Kind::Event, Ordinal::default(), 0).unwrap();
        let (id, kind) = (WorkId { slot: 0, generation: 0 }, WorkKind::Handle);
        let mut works = [Work {
            id,
            kind,
            events: vec![event],
            next: 1,
            failures: 0,
            read_at: Timestamp::ZERO,
            late: false,
            trace: None,
        }];
        let mut call = Call::new();
        call.begin(&mut works, false);
        let kept = call.handle(0);
        assert_eq!(call.event(kept).unwrap().stream(), "order-1");
        call.end_single(&mut works[0]);
        call.begin(&mut works, false);
        let error = call.event(kept).unwrap_err();
        assert!(error.to_string().contains("Fault"), "{error}");
        assert!(call.span(kept).is_err() && call.field(kept, Part::Data, "x").is_err());
    }
}
