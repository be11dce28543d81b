//! The surroundings that a connector is built in.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::checkpoint::Owner;
use crate::clock::Clock;
use crate::runtime::supervise::Group;
use crate::telemetry::metrics::Metrics;

/// The surroundings of one pipeline. Its source, store and sink are built in the same context, so that they can share a
/// client.
#[derive(Clone)]
pub struct Context {
    /// The pipeline's name.
    pub pipeline: Arc<str>,
    /// The consumer group.
    pub group: Arc<str>,
    /// The directory of the pipeline's file. The pipeline reads files beside it.
    pub directory: PathBuf,
    /// The daemon's data directory. The pipeline writes files there.
    pub data: PathBuf,
    pub clock: Clock,
    /// The group of the tasks that a connector starts.
    pub tasks: Group,
    pub metrics: Metrics,
    /// The clients that connectors of this process share.
    pub clients: Clients,
    /// The owner of the pipeline's claims.
    pub owner: Owner,
    /// The pipeline ends at the tail of its source.
    pub finite: bool,
}

impl Context {
    /// Makes a context of its own for a pipeline, with nothing shared. Its group is the pipeline's name.
    pub fn new(pipeline: &str, directory: impl Into<PathBuf>, data: impl Into<PathBuf>) -> Self {
        let clock = Clock::start();
        Self {
            pipeline: pipeline.into(),
            group: pipeline.into(),
            directory: directory.into(),
            data: data.into(),
            clock,
            tasks: Group::daemon(),
            metrics: Metrics::new(clock),
            clients: Clients::default(),
            owner: Owner(pipeline.into()),
            finite: false,
        }
    }

    /// Returns the path of a file that the pipeline reads.
    pub fn input(&self, path: &str) -> PathBuf {
        self.directory.join(Path::new(path))
    }

    /// Returns the path of a file that the pipeline writes.
    pub fn output(&self, path: &str) -> PathBuf {
        self.data.join(Path::new(path))
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("pipeline", &self.pipeline)
            .field("group", &self.group)
            .field("directory", &self.directory)
            .field("data", &self.data)
            .field("finite", &self.finite)
            .finish_non_exhaustive()
    }
}

/// Clients that are shared within the process, by their type and a name such as the URL of a server.
///
/// A client lives as long as somebody uses it: the registry itself keeps none open.
#[derive(Clone, Default)]
pub struct Clients {
    shared: Arc<Mutex<HashMap<ClientKey, Weak<dyn Any + Send + Sync>>>>,
}

/// The type and the name of a client.
type ClientKey = (TypeId, Box<str>);

impl Clients {
    /// Returns the client of this type and name, and makes it if nothing uses one.
    ///
    /// # Errors
    /// `make` fails.
    pub fn get_or_make<C: Any + Send + Sync, E>(
        &self,
        name: &str,
        make: impl FnOnce() -> Result<C, E>,
    ) -> Result<Arc<C>, E> {
        // The lock is held while `make` runs, so that two pipelines that start together share one client. `make` must
        // therefore do no I/O.
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (TypeId::of::<C>(), Box::from(name));
        if let Some(client) = shared.get(&key).and_then(Weak::upgrade)
            && let Ok(client) = client.downcast()
        {
            return Ok(client);
        }
        shared.retain(|_, client| client.strong_count() > 0);
        let client = Arc::new(make()?);
        let weak = Arc::downgrade(&client);
        shared.insert(key, weak);
        Ok(client)
    }
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        f.debug_set().entries(shared.keys().map(|(_, name)| name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn client(clients: &Clients, name: &str, number: u32) -> Arc<u32> {
        clients.get_or_make::<_, Infallible>(name, || Ok(number)).unwrap()
    }

    #[test]
    fn clients_of_one_type_and_name_are_one_while_it_is_used() {
        let clients = Clients::default();
        let first = client(&clients, "tcp://a", 1);
        assert_eq!(*client(&clients.clone(), "tcp://a", 2), 1);
        assert_eq!(*client(&clients, "tcp://b", 3), 3);
        let other_type = clients.get_or_make::<_, Infallible>("tcp://a", || Ok("text".to_owned())).unwrap();
        assert_eq!(*other_type, "text");
        drop(first);
        assert_eq!(*client(&clients, "tcp://a", 4), 4, "an unused client is not kept");
    }

    #[test]
    fn a_client_that_cannot_be_made_is_made_by_the_next_request() {
        let clients = Clients::default();
        assert_eq!(clients.get_or_make::<u32, _>("tcp://a", || Err("refused")), Err("refused"));
        assert_eq!(*client(&clients, "tcp://a", 5), 5);
    }
}
