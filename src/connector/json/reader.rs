//! The reader of a tranche. It reads on a blocking thread, a few batches ahead of the caller.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::log::{Log, LogEnd, LogRead};
use super::{Options, lost_work};
use crate::clock::{Clock, Timestamp};
use crate::position::{Ahead, StartAt};
use crate::runtime::blocking;
use crate::source::{Batch, Next, Room, SourceError, TrancheReader};

/// The next chunk is read while fewer batches than this wait for the caller.
const AHEAD: usize = 4;

/// The time between two looks at a pipe that has nothing at present. A pipe does not tell when its writer goes on.
const PIPE_POLL: Duration = Duration::from_millis(20);

pub(super) struct Reader {
    options: Arc<Options>,
    file: Option<String>,
    /// The position behind the last batch that the caller has.
    resume: StartAt,
    /// The events above the start that are handled already.
    ahead: Option<Ahead>,
    clock: Clock,
    ready: VecDeque<Batch>,
    work: Work,
    /// The time of the next look, after the tail was reported or a pipe had nothing.
    look_at: Option<Timestamp>,
    ended: bool,
}

/// A read on a blocking thread. It returns the log with its result.
type Reading = blocking::Started<(Box<Log>, Result<LogRead, SourceError>)>;

/// The log, or the read that has it.
enum Work {
    /// The log was not opened yet.
    New,
    Idle(Box<Log>),
    /// A read in flight. It is kept here, so that a dropped future loses nothing.
    Busy(Reading),
}

impl Reader {
    pub(super) fn new(
        options: Arc<Options>,
        file: Option<String>,
        from: StartAt,
        ahead: Option<Ahead>,
        clock: Clock,
    ) -> Self {
        Self {
            options,
            file,
            resume: from,
            ahead,
            clock,
            ready: VecDeque::new(),
            work: Work::New,
            look_at: None,
            ended: false,
        }
    }

    /// Begins a read, unless one is in flight.
    fn begin(&mut self) -> Result<&mut Reading, SourceError> {
        let log = match std::mem::replace(&mut self.work, Work::New) {
            Work::New => {
                let options = Arc::clone(&self.options);
                Some(Box::new(Log::new(options, self.file.as_deref(), &self.resume, self.ahead.as_ref())?))
            }
            Work::Idle(log) => Some(log),
            busy @ Work::Busy(_) => {
                self.work = busy;
                None
            }
        };
        if let Some(mut log) = log {
            self.work = Work::Busy(blocking::start(move || {
                let read = log.read();
                (log, read)
            }));
        }
        match &mut self.work {
            Work::Busy(handle) => Ok(handle),
            Work::New | Work::Idle(_) => unreachable!("the read began just now"),
        }
    }

    async fn read(&mut self) -> Result<LogRead, SourceError> {
        let done = self.begin()?.result().await;
        match done {
            Ok((log, read)) => {
                self.work = Work::Idle(log);
                read
            }
            Err(error) => {
                // The thread panicked and took the log with it. Restart behind the last batch that the caller has.
                self.ready.clear();
                self.work = Work::New;
                Err(lost_work(&self.options.path, error))
            }
        }
    }

    /// Waits for a read, and begins the next one if more may follow at once.
    async fn advance(&mut self) -> Result<(), SourceError> {
        let LogRead { batches, end } = self.read().await?;
        self.ready.extend(batches);
        match end {
            LogEnd::More => {
                self.begin()?;
            }
            LogEnd::Pending => self.look_at = Some(self.clock.now() + PIPE_POLL),
            LogEnd::Tail => {}
            LogEnd::Ended => self.ended = true,
        }
        Ok(())
    }

    fn has_read(&self) -> bool {
        matches!(&self.work, Work::Busy(reading) if reading.is_finished())
    }

    fn hand_out(&mut self, batch: Batch) -> Next {
        self.resume = StartAt::Position(batch.resume_at.clone());
        if batch.at_tail && !self.ended {
            self.look_at = Some(self.clock.now() + self.options.poll);
        }
        Next::Batch(batch)
    }
}

#[async_trait]
impl TrancheReader for Reader {
    /// Ignores `room`: chunks have a fixed size.
    async fn next(&mut self, _room: Room) -> Result<Next, SourceError> {
        loop {
            if self.ready.len() < AHEAD && self.has_read() {
                self.advance().await?;
            }
            if let Some(batch) = self.ready.pop_front() {
                return Ok(self.hand_out(batch));
            }
            if self.ended {
                return Ok(Next::End);
            }
            if let Some(look_at) = self.look_at {
                tokio::time::sleep_until(self.clock.instant(look_at)).await;
                self.look_at = None;
            }
            self.advance().await?;
        }
    }
}
