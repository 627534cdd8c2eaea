//! The application of MariaDB.

use std::{net::SocketAddr, process::Stdio, time::SystemTime};

use anyhow::{Context as _, Result};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::{Engine, Row, lines::Lines};
use crate::lab::{
    Backend, Lab,
    mariadb::{self, MariaDb},
};

/// Users, and the table.
const DATA: &str = "CREATE USER xlb IDENTIFIED BY 'secret'; GRANT REPLICA MONITOR ON *.* TO xlb;
    CREATE DATABASE app; CREATE USER app IDENTIFIED BY 'secret'; GRANT ALL ON app.* TO app;
    CREATE TABLE app.entries (writer INT, n INT, server VARCHAR(16), at TIMESTAMP(6))";

/// Beginnings of statements.
const INSERT: &str = "INSERT INTO entries";
const ASK: &str = "SELECT @@report_host";

/// A client program. Dropping it kills it.
pub struct Session {
    lines: Lines<ChildStdin, ChildStdout>,
    _program: Child,
}

impl MariaDb {
    /// Logins and statements of the application since the last start, also those that were refused.
    pub fn requests_of_application(&self) -> Result<usize> {
        let is_of_application =
            |line: &&str| ["Connect\tapp@", INSERT, ASK].iter().any(|it| line.contains(it));
        Ok(self.general_log()?.lines().filter(is_of_application).count())
    }
}

impl Engine for MariaDb {
    const PORT: u16 = mariadb::PORT;
    const WRITERS: u32 = 20;
    const READERS: u32 = 5;
    const CHECK: &str = "type = \"mysql\"\nuser = \"xlb\"";
    const PASSWORD: &str = "secret";

    type Session = Session;

    /// All of them are read-only when they start, as docs/databases.md wants it.
    fn cluster(lab: &Lab) -> Result<[Self; 3]> {
        let start = |number| {
            let name = format!("--report-host=web-{number}");
            Self::start(lab, number, &["--read-only=1", "--binlog-format=ROW", "--general-log=1", &name])
        };
        let servers = [start(1)?, start(2)?, start(3)?];
        servers[0].sql("SET GLOBAL read_only = 0")?;
        servers[0].sql(DATA)?;
        servers[1].follow(&servers[0])?;
        servers[2].follow(&servers[1])?;
        Ok(servers)
    }

    fn backend(&self) -> &Backend {
        &self.backend
    }

    fn kill(&mut self) -> Result<()> {
        Self::kill(self)
    }

    fn start_again(&mut self) -> Result<()> {
        Self::start_again(self)
    }

    fn promote(&self) -> Result<SystemTime> {
        let before = SystemTime::now();
        self.sql("STOP SLAVE; RESET SLAVE ALL; SET GLOBAL read_only = 0")?;
        Ok(before)
    }

    fn rows(&self) -> Result<Vec<Row>> {
        Row::parse_all(
            &self.sql("SELECT CONCAT_WS('|', writer, n, server, UNIX_TIMESTAMP(at)) FROM app.entries")?,
        )
    }

    async fn connect(endpoint: SocketAddr) -> Result<Session> {
        let mut program = Command::new("mariadb")
            .args([
                "--no-defaults",
                "--batch",
                "--skip-column-names",
                "--unbuffered",
                "--user=app",
                "--password=secret",
            ])
            .arg(format!("--host={}", endpoint.ip()))
            .arg(format!("--port={}", endpoint.port()))
            .arg("app")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let ends = program.stdin.take().zip(program.stdout.take());
        let (writer, reader) = ends.context("the client program has no pipes")?;
        Ok(Session { lines: Lines::new(writer, reader), _program: program })
    }

    async fn append(session: &mut Session, (writer, n): (u32, u32)) -> Result<String> {
        let insert = format!("{INSERT} VALUES ({writer}, {n}, @@report_host, NOW(6)) RETURNING server;\n");
        Ok(session.lines.call(&insert).await?)
    }

    async fn ask(session: &mut Session) -> Result<String> {
        Ok(session.lines.call(&format!("{ASK};\n")).await?)
    }
}
