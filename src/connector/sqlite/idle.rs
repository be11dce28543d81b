//! The wait for the next request, and the work that an idle database does meanwhile.
//!
//! SQLite writes the log back into the file when the log passes its limit. Between two such points the file can lack
//! every recent row, which a copy of the file, or a program that cannot read the log, then misses. An idle thread
//! therefore writes the log back. A busy one does so at times (`Open::write_back_old_log`).

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

/// The time without a request after which the thread of a database without a log ends. A start takes about 50 µs, which
/// a pipeline with an event every few seconds does not notice.
const IDLE_BEFORE_REST: Duration = Duration::from_secs(2);

/// The requests to a database's worker.
pub(super) struct Requests {
    receiver: mpsc::Receiver<Request>,
    /// The timer of the worker's thread. It measures real time, also where a test pauses the clock of its own runtime.
    timer: Option<Runtime>,
}

/// The result of a wait.
pub(super) enum Waited {
    Request(Request),
    /// There is nothing to do, and the file holds everything.
    Idle,
    /// Every sender is dropped.
    Closed,
}

impl From<Option<Request>> for Waited {
    fn from(received: Option<Request>) -> Self {
        received.map_or(Self::Closed, Self::Request)
    }
}

impl Requests {
    pub(super) fn new(receiver: mpsc::Receiver<Request>) -> Self {
        Self { receiver, timer: None }
    }

    /// Frees the timer, which a resting worker does not need. The next wait starts another.
    pub(super) fn stop_timer(&mut self) {
        self.timer = None;
    }

    /// Returns the next request, if one waits.
    pub(super) fn try_next(&mut self) -> Option<Request> {
        self.receiver.try_recv().ok()
    }

    /// Waits for the next request, however long.
    pub(super) fn next_in_transaction(&mut self) -> Waited {
        self.receiver.blocking_recv().into()
    }

    /// Waits for the next request. Writes the log of an idle database back.
    pub(super) fn next(&mut self, mut open: Option<&mut Open>) -> Waited {
        match self.receiver.try_recv() {
            Ok(request) => return Waited::Request(request),
            Err(TryRecvError::Disconnected) => return Waited::Closed,
            Err(TryRecvError::Empty) => {}
        }
        if self.timer.is_none() {
            let timer = tokio::runtime::Builder::new_current_thread().enable_time().build();
            // Without a timer the log is written back at its limit and at the end only, which loses nothing.
            self.timer =
                timer.inspect_err(|error| tracing::warn!(%error, "no timer, the log stays until its limit")).ok();
        }
        let Some(timer) = &self.timer else { return self.receiver.blocking_recv().into() };
        let mut pause = IDLE_BEFORE_WRITE_BACK;
        loop {
            let log = open.as_deref_mut().filter(|open| open.has_log());
            let limit = if log.is_some() { pause } else { IDLE_BEFORE_REST };
            let receiver = &mut self.receiver;
            if let Ok(received) = timer.block_on(async { tokio::time::timeout(limit, receiver.recv()).await }) {
                return received.into();
            }
            let Some(open) = log else { return Waited::Idle };
            open.write_back();
            // Doubled for the case that a reader of an old version kept a part of the log in use.
            pause = (pause * 2).min(MAX_WRITE_BACK_PAUSE);
        }
    }
}
