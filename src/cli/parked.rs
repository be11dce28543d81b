//! The arguments of `parked`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::OfPipeline;
use crate::daemon::parked::Selected;

#[derive(Debug, Args)]
pub struct ParkedArgs {
    #[command(subcommand)]
    pub verb: ParkedVerb,
}

#[derive(Debug, Subcommand)]
pub enum ParkedVerb {
    /// List parked streams: the event at fault, its error, its age, and the events that wait
    #[command(after_help = "Example: propulsiond parked list orders --category order --older-than 1h")]
    List {
        #[command(flatten)]
        of: OfPipeline,
        #[command(flatten)]
        selection: SelectionArgs,
        /// Show at most this many streams
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
        /// Continue behind this stream, the last one of the page before
        #[arg(long, value_name = "STREAM", requires = "after_tranche")]
        after_stream: Option<String>,
        /// Continue behind a stream of this tranche
        #[arg(long, value_name = "TRANCHE", requires = "after_stream")]
        after_tranche: Option<String>,
    },
    /// Show the events of a parked stream, in order
    #[command(after_help = "Example: propulsiond parked show orders order-4711")]
    Show {
        #[command(flatten)]
        of: OfPipeline,
        /// Name the stream
        #[arg(value_name = "STREAM")]
        stream: String,
        /// Show at most this many events
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
        /// Continue behind this event, as `show` names it
        #[arg(long, value_name = "EVENT")]
        after: Option<String>,
    },
    /// Offer parked events to the handler again, in order; afterwards their streams flow again
    ///
    /// Without a filter, all parked streams are retried; deferred ones only with `--state deferred`. A stream whose event
    /// fails again stays parked.
    #[command(after_help = "Example: propulsiond parked retry orders --stream order-4711 --wait")]
    Retry {
        #[command(flatten)]
        of: OfPipeline,
        #[command(flatten)]
        selection: SelectionArgs,
        /// Wait until every selected stream flows again or has failed again; exit with 1 if one has failed
        #[arg(long, conflicts_with = "dry_run")]
        wait: bool,
        /// Change nothing, and say how many streams are selected
        #[arg(long)]
        dry_run: bool,
    },
    /// Discard the event at fault of parked streams, and handle their other events
    #[command(after_help = "Example: propulsiond parked discard orders --stream order-4711")]
    Discard {
        #[command(flatten)]
        of: OfPipeline,
        #[command(flatten)]
        selection: SelectionArgs,
        /// Discard in all parked streams
        #[arg(long)]
        all: bool,
        /// Discard all parked events of the streams, and not the event at fault alone
        #[arg(long)]
        whole_stream: bool,
        /// Wait until every selected stream flows again or has failed again; exit with 1 if one has failed
        #[arg(long, conflicts_with = "dry_run")]
        wait: bool,
        /// Change nothing, and say how many streams are selected
        #[arg(long)]
        dry_run: bool,
    },
    /// Replace the data or the metadata of a parked event, to be retried afterwards
    #[command(after_help = "Example: propulsiond parked edit orders order-4711 --data fixed.json")]
    Edit {
        #[command(flatten)]
        of: OfPipeline,
        /// Name the stream
        #[arg(value_name = "STREAM")]
        stream: String,
        /// Edit this event, as `show` names it [default: the event at fault]
        #[arg(long, value_name = "EVENT")]
        event: Option<String>,
        /// Take the new data from this JSON file
        #[arg(long, value_name = "FILE", required_unless_present = "meta")]
        data: Option<PathBuf>,
        /// Take the new metadata from this JSON file
        #[arg(long, value_name = "FILE")]
        meta: Option<PathBuf>,
    },
    /// List the latest requests, and how far the pipeline is with each
    #[command(after_help = "Example: propulsiond parked jobs orders")]
    Jobs(OfPipeline),
}

impl ParkedVerb {
    /// Returns the pipeline that the command is about.
    pub fn of(&self) -> &OfPipeline {
        match self {
            Self::List { of, .. }
            | Self::Show { of, .. }
            | Self::Retry { of, .. }
            | Self::Discard { of, .. }
            | Self::Edit { of, .. }
            | Self::Jobs(of) => of,
        }
    }
}

/// The filter of streams.
#[derive(Debug, Args)]
pub struct SelectionArgs {
    /// Only streams in this state: parked or deferred
    #[arg(long, value_name = "STATE")]
    state: Option<String>,
    /// Only this stream
    #[arg(long, value_name = "STREAM")]
    stream: Option<String>,
    /// Only streams of this category
    #[arg(long, value_name = "CATEGORY")]
    category: Option<String>,
    /// Only streams whose event at fault has this type
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// Only streams whose error has this class, or contains this text
    #[arg(long, value_name = "TEXT")]
    error: Option<String>,
    /// Only streams that are parked for this long: 1h
    #[arg(long, value_name = "DURATION")]
    older_than: Option<String>,
}

impl SelectionArgs {
    /// Returns the selection, in one tranche if that is named.
    pub(crate) fn selected(&self, of: &OfPipeline) -> Selected {
        Selected {
            state: self.state.clone(),
            tranche: of.tranche.clone(),
            stream: self.stream.clone(),
            category: self.category.clone(),
            event_type: self.event_type.clone(),
            error: self.error.clone(),
            older_than: self.older_than.clone(),
        }
    }
}
