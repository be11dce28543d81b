//! Blocking work on files and pipes, on threads of its own.

use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::task::JoinError;

/// Runs `work` on a blocking thread, with exclusive access to `shared`, in the caller's span.
///
/// Fails if `work` panics or the runtime shuts down.
///
/// # Cancel safety
/// If the future is dropped before `work` begins, `work` never begins. Otherwise `work` runs to its end, and the next
/// caller waits for it. An abandoned attempt therefore never overlaps with its retry, and never follows it.
pub(crate) async fn with<T, R>(
    shared: &Arc<Mutex<T>>,
    work: impl FnOnce(&mut T) -> R + Send + 'static,
) -> Result<R, JoinError>
where
    T: Send + 'static,
    R: Send + 'static,
{
    let mut owned = Arc::clone(shared).lock_owned().await;
    let span = tracing::Span::current();
    tokio::task::spawn_blocking(move || span.in_scope(|| work(&mut owned))).await
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[tokio::test]
    async fn abandoned_work_ends_before_the_next_begins() {
        let shared = Arc::new(Mutex::new(Vec::new()));
        let (go, wait) = channel::<()>();
        let mut held = Box::pin(with(&shared, move |done: &mut Vec<i32>| {
            wait.recv().unwrap();
            done.push(1);
        }));
        assert!(futures_util::poll!(&mut held).is_pending());
        drop(held);
        let mut queued = Box::pin(with(&shared, |done: &mut Vec<i32>| done.push(2)));
        assert!(futures_util::poll!(&mut queued).is_pending());
        drop(queued);
        go.send(()).unwrap();
        let done = with(&shared, |done| {
            done.push(3);
            done.clone()
        });
        assert_eq!(done.await.unwrap(), [1, 3]);
    }

    #[tokio::test]
    async fn work_after_a_panic_runs() {
        let shared = Arc::new(Mutex::new(0));
        assert!(with(&shared, |_| panic!("on purpose")).await.is_err());
        assert_eq!(with(&shared, |number| *number).await.unwrap(), 0);
    }
}
