//! Spans: finished ones, open ones, and the spans of a piece of work.

use std::sync::Arc;

use time::OffsetDateTime;

use super::{Context, Propagation, Recorder};
use crate::clock::{Period, Timestamp};

/// The role of a span in its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Internal,
    /// It began with a message of another system.
    Consumer,
    /// It is a request to another system.
    Client,
}

/// The parent of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    pub span_id: u64,
    /// The parent belongs to another process.
    pub is_remote: bool,
}

/// A fact about a span.
#[derive(Clone, Debug, PartialEq)]
pub enum Attribute {
    Text(Arc<str>),
    Int(i64),
}

impl From<&str> for Attribute {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<i64> for Attribute {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

/// A span that has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    pub context: Context,
    /// The `tracestate` of its trace.
    pub state: Option<Arc<str>>,
    pub parent: Option<Parent>,
    /// The other traces that the span belongs to.
    pub links: Vec<Context>,
    pub name: &'static str,
    pub kind: Kind,
    pub began: OffsetDateTime,
    pub ended: OffsetDateTime,
    pub attributes: Vec<(&'static str, Attribute)>,
    /// The reason of its failure.
    pub failed: Option<String>,
}

/// A span that has not ended. Dropped without an end, it is not recorded.
#[derive(Clone, Debug)]
pub struct Open {
    recorder: Recorder,
    context: Context,
    state: Option<Arc<str>>,
    parent: Option<Parent>,
    links: Vec<Context>,
    kind: Kind,
    began: Timestamp,
    attributes: Vec<(&'static str, Attribute)>,
    failed: Option<String>,
}

impl Open {
    /// Opens the first span of this process in a trace: the carried trace, or a new one.
    pub fn root(recorder: &Recorder, propagation: Option<Propagation>, kind: Kind, began: Timestamp) -> Self {
        let parent =
            propagation.as_ref().map(|propagation| Parent { span_id: propagation.context.span_id, is_remote: true });
        let context = propagation.as_ref().map_or_else(Context::root, |sender| sender.context.child());
        let state = propagation.and_then(|sender| sender.state);
        let (links, attributes) = (Vec::new(), Vec::new());
        Self { recorder: recorder.clone(), context, state, parent, links, kind, began, attributes, failed: None }
    }

    /// Opens a span below this one.
    pub fn child(&self, kind: Kind, began: Timestamp) -> Self {
        Self {
            recorder: self.recorder.clone(),
            context: self.context.child(),
            state: self.state.clone(),
            parent: Some(Parent { span_id: self.context.span_id, is_remote: false }),
            links: Vec::new(),
            kind,
            began,
            attributes: Vec::new(),
            failed: None,
        }
    }

    /// Opens a span below this one that begins now.
    pub fn child_now(&self, kind: Kind) -> Self {
        self.child(kind, self.recorder.now())
    }

    /// Returns the context that a request made within the span carries.
    pub fn context(&self) -> Context {
        self.context
    }

    /// Returns the `tracestate` that goes with [`Open::context`].
    pub fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }

    pub fn links(mut self, links: Vec<Context>) -> Self {
        self.links = links;
        self
    }

    pub fn set(&mut self, name: &'static str, value: impl Into<Attribute>) {
        self.attributes.push((name, value.into()));
    }

    /// Marks the span as failed. `kind` is the failure's name in metrics.
    pub fn fail(&mut self, kind: &str, why: &str) {
        self.attributes.retain(|(name, _)| *name != "error.type");
        self.set("error.type", kind);
        self.failed = Some(why.to_owned());
    }

    /// Ends the span and records it.
    pub fn end(self, name: &'static str, at: Timestamp) {
        let Self { recorder, context, state, parent, links, kind, began, attributes, failed } = self;
        let [began, ended] = recorder.walls([began, at.max(began)]);
        recorder.record(Span { context, state, parent, links, name, kind, began, ended, attributes, failed });
    }

    /// Ends the span now.
    pub fn end_now(self, name: &'static str) {
        let now = self.recorder.now();
        self.end(name, now);
    }
}

/// The spans of a piece of work in flight: that of its call, and that of the current stage.
#[derive(Clone, Debug)]
pub struct Traced {
    call: Open,
    stage: Option<Open>,
}

impl Traced {
    pub fn new(call: Open) -> Self {
        Self { call, stage: None }
    }

    /// Returns the span of the call.
    pub fn call(&mut self) -> &mut Open {
        &mut self.call
    }

    /// Returns the current stage's span, or else the call's. Requests to other systems become its children.
    pub fn current(&self) -> &Open {
        self.stage.as_ref().unwrap_or(&self.call)
    }

    /// Opens the span of a stage, a child of the call's.
    pub fn enter(&mut self, began: Timestamp) {
        self.stage = Some(self.call.child(Kind::Internal, began));
    }

    /// Ends the current stage with its measured times. `failed` has the kind of the failure and its reason.
    pub fn leave(&mut self, name: &'static str, period: Period, failed: Option<(&str, &str)>) {
        let Some(mut stage) = self.stage.take() else { return };
        stage.began = period.began;
        if let Some((kind, why)) = failed {
            stage.fail(kind, why);
        }
        stage.end(name, period.ended);
    }

    /// Ends the span of the call.
    pub fn end(self, name: &'static str, at: Timestamp) {
        self.call.end(name, at);
    }
}
