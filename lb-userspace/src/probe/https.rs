//! `type = "https"`: as [`http`](super::http), over TLS.

use std::time::Duration;

use tokio::time::timeout;

use super::{
    Answer, CheckType, Facts, Fault, Place, Verdict,
    connect::connect,
    farewell::farewell,
    http::request::{EXPECT, HEADERS, HOST, METHOD, PATH, Request},
    tls_client::{self, CA, CERT, KEY, SERVER_NAME, TLS, TlsClient, TlsSession},
};
use crate::document::{AnyKey, Keys};

const PORT: u16 = 443;

/// Requests a path over TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Https {
    request: Request,
    client: TlsClient,
}

impl CheckType for Https {
    const NAME: &'static str = "https";
    const KEYS: &'static [&'static dyn AnyKey] =
        &[&METHOD, &PATH, &HOST, &HEADERS, &EXPECT, &TLS, &CA, &SERVER_NAME, &CERT, &KEY];
    type Session = TlsSession;

    fn read(keys: &Keys<'_>) -> Self {
        Self { request: Request::read(keys), client: TlsClient::read_always(keys) }
    }

    fn check_files(&self) -> Result<(), String> {
        self.client.check_files()
    }

    async fn run(&self, session: &mut TlsSession, place: Place, limit: Duration) -> Verdict {
        let exchange = async {
            let stream = connect(place).await?;
            let mut stream = self.client.handshake(session, stream, place.address).await?;
            let answer = self.request.exchange(&mut stream, place.address, PORT).await;
            Ok((answer, stream))
        };
        match timeout(limit, exchange).await.unwrap_or(Err(Fault::Silent)) {
            Ok((answer, mut stream)) => {
                let facts = Facts { certificate_ends: tls_client::certificate_ends(&stream), ..Facts::default() };
                let verdict = Verdict::now(answer.map(|text| Answer { text, facts }));
                farewell(&mut stream).await;
                verdict
            }
            Err(fault) => Verdict::now(Err(fault)),
        }
    }
}
