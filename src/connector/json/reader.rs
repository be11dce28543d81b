//! The reader of a tranche: hands the blocking work to a thread, a few batches ahead of what is asked for.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::task::JoinHandle;

use super::log::{Log, Step};
use super::{Options, lost_task};
use crate::clock::{Clock, Timestamp};
use crate::position::StartAt;
use crate::source::{Batch, Next, Room, SourceError, TrancheReader};

/// While fewer batches than this wait to be handed out, the next chunk is read.
const AHEAD: usize = 4;

pub(super) struct Reader {
    options: Arc<Options>,
    file: Option<String>,
    /// Behind the last batch that was handed out.
    resume: StartAt,
    clock: Clock,
    ready: VecDeque<Batch>,
    work: Work,
    /// The tail was reported, and nothing came since: look again then.
    look_at: Option<Timestamp>,
    ended: bool,
}

/// Gives the log back with what one read brought.
type Reading = JoinHandle<(Box<Log>, Result<Step, SourceError>)>;

/// Where the log is.
enum Work {
    /// Not made yet.
    New,
    Idle(Box<Log>),
    /// Reading. Kept here, so that a dropped future loses nothing.
    Busy(Reading),
}

impl Reader {
    pub(super) fn new(options: Arc<Options>, file: Option<String>, from: StartAt, clock: Clock) -> Self {
        Self {
            options,
            file,
            resume: from,
            clock,
            ready: VecDeque::new(),
            work: Work::New,
            look_at: None,
            ended: false,
        }
    }

    /// Begins to read, unless that is under way.
    fn begin(&mut self) -> Result<&mut Reading, SourceError> {
        let log = match std::mem::replace(&mut self.work, Work::New) {
            Work::New => Some(Box::new(Log::new(Arc::clone(&self.options), self.file.as_deref(), &self.resume)?)),
            Work::Idle(log) => Some(log),
            busy @ Work::Busy(_) => {
                self.work = busy;
                None
            }
        };
        if let Some(mut log) = log {
            self.work = Work::Busy(tokio::task::spawn_blocking(move || {
                let step = log.step();
                (log, step)
            }));
        }
        match &mut self.work {
            Work::Busy(handle) => Ok(handle),
            Work::New | Work::Idle(_) => unreachable!("work was begun just now"),
        }
    }

    async fn step(&mut self) -> Result<Step, SourceError> {
        let done = self.begin()?.await;
        match done {
            Ok((log, step)) => {
                self.work = Work::Idle(log);
                step
            }
            Err(error) => {
                // Start over behind what was handed out.
                self.ready.clear();
                self.work = Work::New;
                Err(lost_task(&self.options.path, error))
            }
        }
    }

    /// Waits for a read, and begins the next one unless the tail is reached.
    async fn advance(&mut self) -> Result<(), SourceError> {
        let step = self.step().await?;
        self.ended = step.ended;
        self.ready.extend(step.batches);
        if !step.at_tail {
            self.begin()?;
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
