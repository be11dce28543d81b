//! The wait for the next request, and the work that an idle database does meanwhile.
//!
//! SQLite writes the log back into the file when the log passes its limit. Between two such points the file can lack
//! every recent row, which a copy of the file, or a program that cannot read the log, then misses. An idle thread
//! therefore writes the log back.

use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::mpsc::{self, error::TryRecvError};

use super::open::Open;
use super::worker::Request;

/// The time without a request after which the log is written back. Longer than the pause between two group commits of
/// a busy pipeline, as writing back costs two syncs.
const IDLE_BEFORE_WRITE_BACK: Duration = Duration::from_millis(500);
/// The longest pause between attempts while another process reads an old version of the file.
const MAX_WRITE_BACK_PAUSE: Duration = Duration::from_secs(60);

/// The requests to a database's thread.
pub(super) struct Requests {
    receiver: mpsc::Receiver<Request>,
    /// The timer of the thread. It measures real time, also where a test pauses the clock of its own runtime.
    timer: Option<Runtime>,
}

impl Requests {
    pub(super) fn new(receiver: mpsc::Receiver<Request>) -> Self {
        let timer = tokio::runtime::Builder::new_current_thread().enable_time().build();
        // Without a timer the log is written back at its limit and at the end only, which loses nothing.
        let timer = timer.inspect_err(|error| tracing::warn!(%error, "no timer, the log stays until its limit")).ok();
        Self { receiver, timer }
    }

    /// Returns the next request, if one waits.
    pub(super) fn try_next(&mut self) -> Option<Request> {
        self.receiver.try_recv().ok()
    }

    /// Waits for the next request; `None` after every sender is dropped. Writes the log of an idle database back.
    pub(super) fn next(&mut self, open: Option<&mut Open>) -> Option<Request> {
        match self.receiver.try_recv() {
            Ok(request) => return Some(request),
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) => {}
        }
        let Some((open, timer)) = open.zip(self.timer.as_ref()) else { return self.receiver.blocking_recv() };
        let mut pause = IDLE_BEFORE_WRITE_BACK;
        while open.has_log() {
            let receiver = &mut self.receiver;
            if let Ok(request) = timer.block_on(async { tokio::time::timeout(pause, receiver.recv()).await }) {
                return request;
            }
            open.write_back();
            // Doubled for the case that a reader of an old version kept a part of the log in use.
            pause = (pause * 2).min(MAX_WRITE_BACK_PAUSE);
        }
        self.receiver.blocking_recv()
    }
}
