//! propulsiond
pub mod position;
pub mod event;
pub mod value;
pub mod work;
pub mod clock;
pub mod retry;
pub mod secret;
pub mod setting;
pub mod filter;
pub mod jsonlines;

pub mod source;
pub mod checkpoint;
pub mod handler;
pub mod sink;
pub mod scheduler;
pub mod supervise;
pub mod metrics;

pub mod script;
pub mod connector;
pub mod pipeline;

pub mod settings;
pub mod spec;
pub mod http;
pub mod app;
pub mod cli;
