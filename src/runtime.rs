//! The runtime's services: delays between retries, supervised tasks, blocking work, the shared HTTP client.

pub mod retry;
pub mod supervise;
pub mod blocking;
pub mod ticker;
pub mod http_client;
