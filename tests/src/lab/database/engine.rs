//! What a database server must be able to do in a [`Scene`](super::Scene).

use std::{future::Future, net::SocketAddr, time::SystemTime};

use anyhow::Result;

use super::Row;
use crate::lab::{Backend, Lab};

/// A server of a cluster, and the clients of its kind.
pub trait Engine: Sized + 'static {
    /// Where every server listens, and the service for writes.
    const PORT: u16;
    /// The number of clients that write.
    const WRITERS: u32;
    /// The number of clients that read.
    const READERS: u32;
    /// The check: its type and its user, as they are written.
    const CHECK: &str;
    /// The password of the check.
    const PASSWORD: &str;

    /// A client's connection.
    type Session;

    /// Starts a primary, a replica of it, and a replica of that one, with the table `rows`.
    fn cluster(lab: &Lab) -> Result<[Self; 3]>;

    /// The host where it runs.
    fn backend(&self) -> &Backend;

    /// Kills it at once.
    fn kill(&mut self) -> Result<()>;

    /// Starts it after [`Self::kill`], with the configuration that it had.
    fn start_again(&mut self) -> Result<()>;

    /// Makes a replica the primary. Returns when it became one, or shortly before.
    fn promote(&self) -> Result<SystemTime>;

    /// The rows that it has.
    fn rows(&self) -> Result<Vec<Row>>;

    /// Logs in as the application.
    fn connect(endpoint: SocketAddr) -> impl Future<Output = Result<Self::Session>>;

    /// Appends the row of this writer and number. Returns the server that took it.
    fn append(session: &mut Self::Session, key: (u32, u32)) -> impl Future<Output = Result<String>>;

    /// Asks for the name of the server.
    fn ask(session: &mut Self::Session) -> impl Future<Output = Result<String>>;
}
