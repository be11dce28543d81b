//! Signals: the first one asks the daemon to stop, a second one ends the process.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use crate::cli::ExitStatus;

/// Signals within this time count as one. `timeout` and `docker stop` signal a process and then its group, which reaches
/// the process twice.
const AT_ONCE: Duration = Duration::from_millis(20);

/// Handles signals from this call on. The future resolves at the first SIGTERM or SIGINT; a second one ends the process.
/// SIGHUP notifies `reload`.
pub fn stop_signals(reload: Arc<Notify>) -> impl Future<Output = u8> + Send {
    let mut terminate = signal(SignalKind::terminate()).expect("a handler for SIGTERM can be installed");
    let mut interrupt = signal(SignalKind::interrupt()).expect("a handler for SIGINT can be installed");
    let mut hang_up = signal(SignalKind::hangup()).expect("a handler for SIGHUP can be installed");
    let mut next = async move || {
        let kind = loop {
            tokio::select! {
                _ = terminate.recv() => break SignalKind::terminate(),
                _ = interrupt.recv() => break SignalKind::interrupt(),
                _ = hang_up.recv() => reload.notify_one(),
            }
        };
        u8::try_from(kind.as_raw_value()).unwrap_or(u8::MAX)
    };
    async move {
        let first = next().await;
        // A repeat within `AT_ONCE` is the same request.
        let _repeated = tokio::time::timeout(AT_ONCE, next()).await;
        #[expect(
            clippy::disallowed_methods,
            reason = "the task outlives every supervised one, and ends with the process"
        )]
        tokio::spawn(async move {
            let second = next().await;
            eprintln!("a second signal: ending at once");
            std::process::exit(ExitStatus::Signalled(second).code().into());
        });
        first
    }
}
