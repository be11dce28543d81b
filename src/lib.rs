//! propulsiond: per-stream ordered, highly concurrent reactions over event feeds, declared in a file.
//!
//! A pipeline reads a [`source`] and regroups its events by stream in a [`scheduler`]. It offers each stream's run of events
//! to a [`handler`], writes the decisions to a [`sink`], and commits its progress to a [`checkpoint`] store. The daemon runs
//! many pipelines in one process and shows their state over HTTP.
//!
//! # The map
//!
//! The modules below stand in the order of their dependencies: each uses only modules above it, and a test enforces that.
//! Inside a directory, the order of its `pub mod` lines is the dependency order.
//!
//! | module | contents |
//! |---|---|
//! | [`position`] | tranches, ordinals, positions, progress |
//! | [`event`] | events over one shared buffer |
//! | [`effect`] | the values that handlers emit |
//! | [`clock`] | timestamps, the injected clock |
//! | [`trace`] | trace context, its propagation, spans, the recorder |
//! | [`work`] | units of work: a stream's events on their way to a handler |
//! | [`formats`] | JSON lines, encodings, the wording of messages |
//! | [`config`] | text that users write: scalars, secrets, documents, filters, templates, the daemon's settings |
//! | [`runtime`] | retries, supervised tasks, blocking work, the HTTP client |
//! | [`source`] | the trait of sources, its data and errors |
//! | [`checkpoint`] | the trait of checkpoint stores, its data and errors |
//! | [`handler`] | the trait of handlers, its data and errors |
//! | [`sink`] | the trait of sinks, its data and errors |
//! | [`scheduler`] | a value: events in, work out. It has no I/O, task or clock |
//! | [`telemetry`] | health, logs, metrics, exported traces |
//! | [`script`] | rhai handlers |
//! | [`connector`] | one directory for each connector: everything that touches the outside world |
//! | [`pipeline`] | one running pipeline: the driver, its parts, and the tasks around it. It names no connector |
//! | [`spec`] | pipeline files: parse and check |
//! | `daemon` | the pipelines of one process, their keepers, and the data directory |
//! | `http` | the admin API, `/metrics` and `/health` |
//! | [`commands`] | schema, explain, handler tests, doctor, rebuild, scaffold, list, status, diff |
//! | [`cli`] | the command line |
//! | [`app`] | the composition root and the exit codes |
//!
//! # Guarantees
//!
//! * A stream has at most one call at a time, until that call has really ended. Its events are offered in index order.
//! * Progress covers handled, filtered, skipped and parked events only. It is computed after the sink has accepted the
//!   decisions, and never goes back. An ordinal never denotes another event.
//! * A commit follows the latest commit under its fence, or fails. A later claim makes the commits of all earlier owners
//!   fail.
//! * If the sink holds the progress, effects and progress are written in one transaction, or neither is.
//! * No effect of a failed call reaches a sink. No event is skipped unless the pipeline's file says so.
//! * The driver waits for one message at a time, and never for a send, a store, a handler or a sink.
//!
//! The simulation (`tests/it/sim.rs`) checks these under seeded faults, crashes and rival owners.
pub mod position;
pub mod event;
pub mod effect;
pub mod clock;
pub mod trace;
pub mod work;
pub mod formats;
pub mod config;
pub mod runtime;
pub mod source;
pub mod checkpoint;
pub mod handler;
pub mod sink;
pub mod scheduler;
pub mod telemetry;
pub mod script;
pub mod connector;
pub mod pipeline;
pub mod spec;
pub(crate) mod daemon;
pub(crate) mod http;
pub mod commands;
pub mod cli;
pub mod app;
