//! A client's connection that gets a line for each command.

use std::io::{self, ErrorKind};

use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};

/// See the [module](self).
pub struct Lines<W, R> {
    writer: W,
    reader: BufReader<R>,
}

impl<W: AsyncWrite + Unpin, R: AsyncRead + Unpin> Lines<W, R> {
    pub fn new(writer: W, reader: R) -> Self {
        Self { writer, reader: BufReader::new(reader) }
    }

    /// Sends a command, and returns the line that answers it.
    pub async fn call(&mut self, command: &str) -> io::Result<String> {
        self.writer.write_all(command.as_bytes()).await?;
        self.writer.flush().await?;
        self.line().await
    }

    /// The next line, without its end.
    pub async fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.reader.read_line(&mut line).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }
}
