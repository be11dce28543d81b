//! A periodic function on a thread of its own, for components without a loop.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Calls a function periodically until it is dropped. The drop waits for a call in progress.
#[derive(Debug)]
pub(crate) struct Ticker {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    /// Starts the thread `name`, in the caller's span. The first call follows after one interval. An interval is at
    /// least one millisecond.
    pub(crate) fn start(name: &str, every: Duration, tick: impl FnMut() + Send + 'static) -> io::Result<Self> {
        let (stop, stopped) = channel();
        let every = every.max(Duration::from_millis(1));
        let span = tracing::Span::current();
        let work = move || span.in_scope(|| run(every, &stopped, tick));
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

fn run(every: Duration, stopped: &Receiver<()>, mut tick: impl FnMut()) {
    while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
        tick();
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("the thread of a periodic function panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticker_calls_its_function_until_it_is_dropped() {
        let (ticked, ticks) = channel();
        let ticker = Ticker::start("test", Duration::ZERO, move || ticked.send(()).unwrap()).unwrap();
        for _ in 0..3 {
            ticks.recv_timeout(Duration::from_secs(10)).unwrap();
        }
        drop(ticker);
        while ticks.try_recv().is_ok() {}
        assert_eq!(ticks.recv_timeout(Duration::from_secs(10)), Err(RecvTimeoutError::Disconnected));
    }
}
