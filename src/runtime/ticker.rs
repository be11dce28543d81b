//! Something done at intervals, on a thread of its own: for parts that have no loop that could do it.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Calls a function at intervals until it is dropped, which waits for a call that runs.
#[derive(Debug)]
pub struct Ticker {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    /// Starts a thread of that name, in the span that this is called in. The first call comes after one interval; those shorter than a millisecond last one.
    pub fn start(name: &str, every: Duration, tick: impl FnMut() + Send + 'static) -> io::Result<Self> {
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
            tracing::error!("a thread that does something at intervals panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ticks_until_it_is_dropped() {
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
