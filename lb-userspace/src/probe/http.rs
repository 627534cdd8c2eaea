//! `type = "http"`: up if the backend answers as expected over HTTP/1.
//!
//! The status line and the headers decide, and the beginning of the body if a text is expected in it. Otherwise the body
//! may be short, cut off, slow or endless, like an event stream. Each request has its own connection, and redirects are
//! not followed: a redirect is an answer, and a backend must not choose what this host connects to.

pub(crate) mod body;
pub(crate) mod expect;
pub(crate) mod head;
pub(crate) mod request;

use std::time::Duration;

use tokio::time::timeout;

use self::request::{EXPECT, HEADERS, HOST, METHOD, PATH, Request};
use super::{Answer, CheckType, Fault, Place, Verdict, connect::connect, farewell::read_out};
use crate::document::{AnyKey, Keys};

const PORT: u16 = 80;

/// Requests a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    request: Request,
}

impl Http {
    /// A GET of this path. `None`: the probed address is the host.
    pub fn get(path: &str, host: Option<&str>) -> Self {
        Self { request: Request::get(path, host) }
    }
}

impl CheckType for Http {
    const NAME: &'static str = "http";
    const KEYS: &'static [&'static dyn AnyKey] = &[&METHOD, &PATH, &HOST, &HEADERS, &EXPECT];
    type Session = ();

    fn read(keys: &Keys<'_>) -> Self {
        Self { request: Request::read(keys) }
    }

    async fn run(&self, (): &mut (), place: Place, limit: Duration) -> Verdict {
        let exchange = async {
            let mut stream = connect(place).await?;
            let answer = self.request.exchange(&mut stream, place.address, PORT).await;
            Ok((answer, stream))
        };
        match timeout(limit, exchange).await.unwrap_or(Err(Fault::Silent)) {
            Ok((answer, stream)) => {
                let verdict = Verdict::now(answer.map(Answer::from));
                read_out(stream).await;
                verdict
            }
            Err(fault) => Verdict::now(Err(fault)),
        }
    }
}
