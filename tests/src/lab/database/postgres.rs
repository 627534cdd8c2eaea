//! The application of PostgreSQL.

use std::{net::SocketAddr, time::SystemTime};

use anyhow::{Result, bail};
use tokio_postgres::{Client, Config, NoTls};

use super::{Engine, Row};
use crate::lab::{
    Backend, Lab,
    postgres::{self, Postgres},
};

/// The user of the application, its password, and its database.
const APPLICATION: (&str, &str) = ("app", "of-the-application");
const TABLE: &str = "create table rows(writer int, n int, server text default current_setting('cluster_name'), \
                     at timestamptz default clock_timestamp())";

impl Engine for Postgres {
    const PORT: u16 = postgres::PORT;
    const WRITERS: u32 = 200;
    const READERS: u32 = 50;
    const CHECK: &str = "type = \"postgres\"\nuser = \"xlb\"";
    const PASSWORD: &str = "of-the-checks";

    type Session = Client;

    fn cluster(lab: &Lab) -> Result<[Self; 3]> {
        let [first, second, third] = lab.backends.as_slice() else { bail!("the lab has no three servers") };
        let primary = Self::primary(first, lab.directory())?;
        let (user, password) = APPLICATION;
        primary.sql(&format!(
            "create role xlb login password '{}'; grant pg_monitor to xlb; create role {user} login password '{password}'",
            Self::PASSWORD
        ))?;
        primary.sql(&format!("create database {user} owner {user}"))?;
        primary.sql_of(user, &format!("set role {user}; {TABLE}"))?;
        let candidate = Self::replica_of(&primary, second, lab.directory())?;
        let replica = Self::replica_of(&candidate, third, lab.directory())?;
        Ok([primary, candidate, replica])
    }

    fn backend(&self) -> &Backend {
        &self.backend
    }

    fn kill(&mut self) -> Result<()> {
        Self::kill(self)
    }

    fn start_again(&mut self) -> Result<()> {
        self.start()
    }

    fn promote(&self) -> Result<SystemTime> {
        Self::promote(self)
    }

    fn rows(&self) -> Result<Vec<Row>> {
        let query = "select writer, n, server, extract(epoch from at) from rows";
        Row::parse_all(&self.sql_of(APPLICATION.0, query)?)
    }

    async fn connect(endpoint: SocketAddr) -> Result<Client> {
        let (user, password) = APPLICATION;
        let mut config = Config::new();
        config
            .host(endpoint.ip().to_string())
            .port(endpoint.port())
            .user(user)
            .password(password)
            .dbname(user);
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    async fn append(client: &mut Client, (writer, n): (u32, u32)) -> Result<String> {
        let insert = "insert into rows(writer, n) values ($1, $2) returning server";
        Ok(client.query_one(insert, &[&writer.cast_signed(), &n.cast_signed()]).await?.try_get(0)?)
    }

    async fn ask(client: &mut Client) -> Result<String> {
        Ok(client.query_one("select current_setting('cluster_name')", &[]).await?.try_get(0)?)
    }
}
