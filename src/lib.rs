//! propulsiond: per-stream ordered, highly concurrent reactions over event feeds, declared in a file.
//!
//! A pipeline reads a [`source`], regroups its events by stream in a [`scheduler`], offers each stream's run of events to a
//! [`handler`], hands what that decides to a [`sink`], and stores how far it is in a [`checkpoint`] store. The daemon
//! runs many of them in one process and says over HTTP how they are.
//!
//! # The map
//!
//! The modules below stand in the order of their dependencies: each uses only what stands above it, which a test holds.
//!
//! | module | is for |
//! |---|---|
//! | [`position`] [`event`] [`value`] [`work`] | the domain's words: ordinals and progress, events over one shared buffer, what is emitted, units of work |
//! | [`clock`] [`trace`] | time; which trace an event is part of, and the spans of what becomes of it |
//! | [`retry`] [`secret`] [`setting`] | delays, what is never shown, the scalars of settings |
//! | [`document`] [`filter`] | TOML and YAML as one tree with places, mistakes with a caret; which events a pipeline takes |
//! | [`data`] [`finding`] | the data folder and who holds it; what an inspection of files finds |
//! | [`jsonlines`] [`render`] [`template`] [`ticker`] [`web`] [`blocking`] | what several connectors share |
//! | [`source`] [`checkpoint`] [`handler`] [`sink`] | the traits that connectors and handlers implement |
//! | [`scheduler`] | a value: inputs in, work out; knows what is handled. No IO, task or clock |
//! | [`health`] [`supervise`] [`logging`] [`metrics`] `otlp` | states and their judgement, tasks with an owner, what is logged, counted and traced |
//! | [`script`] [`connector`] | rhai handlers; everything that touches the outside world |
//! | [`pipeline`] | one running pipeline: the loop that owns a scheduler, and the tasks around it. Names no connector |
//! | [`settings`] [`spec`] [`schema`] [`explain`] | what a user writes, what an editor is to know of it, and what it comes to, in words |
//! | [`cases`] [`doctor`] [`scaffold`] | tests of handlers, which stand beside their pipelines; a look over all that is kept; new pipelines from templates |
//! | [`http`] [`cli`] [`app`] | what a user asks and types; the composition root |
//!
//! # What holds
//!
//! * A stream has at most one call at a time, until that has really ended; its events are offered in index order.
//! * Progress covers what was handled, filtered, skipped or parked, and nothing else; it is computed after the sink has
//!   accepted, and never goes back. An ordinal never denotes another event.
//! * A commit is the next one under its fence, or it fails; whoever claims later makes all earlier owners fail.
//! * Where the sink holds the progress, effects and progress are written in one transaction, or neither.
//! * Nothing a handler failed on reaches a sink; nothing is skipped unless the pipeline's file says so.
//! * The driver never waits: not for a send, a store, a handler or a sink.
//!
//! The simulation (`tests/it/sim.rs`) holds these under seeded faults, crashes and rivals.
pub mod position;
pub mod event;
pub mod value;
pub mod clock;
pub mod trace;
pub mod work;
pub mod retry;
pub mod secret;
pub mod setting;
pub mod document;
pub mod filter;
pub mod jsonlines;
pub mod render;
pub mod template;
pub mod ticker;
pub mod web;
pub mod blocking;
pub mod data;
pub mod finding;

pub mod source;
pub mod checkpoint;
pub mod handler;
pub mod sink;
pub mod scheduler;
pub mod health;
pub mod supervise;
pub mod logging;
pub mod metrics;
#[cfg(feature = "otlp")]
pub mod otlp;

pub mod script;
pub mod connector;
pub mod pipeline;

pub mod settings;
pub mod spec;
pub mod schema;
pub mod explain;
pub mod cases;
pub mod doctor;
pub mod scaffold;
pub mod http;
pub mod cli;
pub mod app;
