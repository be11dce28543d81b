//! The runtime's services: delays between retries, supervised tasks, blocking work, the shared HTTP client.

pub mod retry;
pub mod supervise;
pub(crate) mod blocking;
pub(crate) mod ticker;
pub(crate) mod http_client;
