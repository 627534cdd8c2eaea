//! The application of Redis.

use std::{net::SocketAddr, time::SystemTime};

use anyhow::{Result, bail, ensure};
use tokio::net::{
    TcpStream,
    tcp::{OwnedReadHalf, OwnedWriteHalf},
};

use super::{Engine, Row, SETTLED, lines::Lines};
use crate::lab::{
    Backend, Family, Lab,
    redis::{self, Redis, USERS},
    wait::eventually,
};

/// The name of the server is that of its file.
const NAME: &str = "string.match(redis.call('INFO', 'server'), 'config_file:[^\\n]*/(web%-%d)%.conf')";

impl Engine for Redis {
    const PORT: u16 = redis::PORT;
    const WRITERS: u32 = 20;
    const READERS: u32 = 5;
    const CHECK: &str = "type = \"redis\"\nuser = \"xlb\"";
    const PASSWORD: &str = "secret";

    type Session = Lines<OwnedWriteHalf, OwnedReadHalf>;

    fn cluster(lab: &Lab) -> Result<[Self; 3]> {
        let replica_of = |server: &Self| {
            format!("{USERS}\nreplicaof {} {}", server.backend.address.of(Family::V4), redis::PORT)
        };
        let primary = Self::start(lab, 1, USERS)?;
        let candidate = Self::start(lab, 2, &replica_of(&primary))?;
        let replica = Self::start(lab, 3, &replica_of(&candidate))?;
        let servers = [primary, candidate, replica];
        wait_until_a_write_reaches_all(&servers)?;
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
        self.ask(&["REPLICAOF", "NO", "ONE"])?;
        Ok(before)
    }

    fn rows(&self) -> Result<Vec<Row>> {
        Row::parse_all(&Self::ask(self, &["LRANGE", "rows", "0", "-1"])?)
    }

    async fn connect(endpoint: SocketAddr) -> Result<Self::Session> {
        let (reader, writer) = TcpStream::connect(endpoint).await?.into_split();
        Ok(Lines::new(writer, reader))
    }

    async fn append(session: &mut Self::Session, (writer, n): (u32, u32)) -> Result<String> {
        let script = format!(
            "local name, time = {NAME}, redis.call('TIME') \
             redis.call('RPUSH', 'rows', string.format('{writer}|{n}|%s|%d.%06d', name, time[1], time[2])) return name"
        );
        run(session, &script).await
    }

    async fn ask(session: &mut Self::Session) -> Result<String> {
        run(session, &format!("return {NAME}")).await
    }
}

/// Runs a script that returns text, as a RESP array of EVAL, the script, and the number of keys.
async fn run(session: &mut Lines<OwnedWriteHalf, OwnedReadHalf>, script: &str) -> Result<String> {
    let command = format!("*3\r\n$4\r\nEVAL\r\n${}\r\n{script}\r\n$1\r\n0\r\n", script.len());
    let header = session.call(&command).await?;
    ensure!(header.starts_with('$'), "{header}");
    let text = session.line().await?;
    if text.is_empty() {
        bail!("the server does not know its name")
    }
    Ok(text)
}

/// A primary sends nothing before the first acknowledgement of a replica, which may be a second after the link is up.
fn wait_until_a_write_reaches_all(servers: &[Redis]) -> Result<()> {
    servers[0].ask(&["SET", "reached", "yes"])?;
    for server in servers {
        let what = format!("a write reaches Redis on {}", server.backend.name);
        eventually(SETTLED, &what, || Ok(server.ask(&["GET", "reached"])? == "yes"))?;
    }
    Ok(())
}
