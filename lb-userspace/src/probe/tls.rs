//! `type = "tls"`: up if a TLS handshake succeeds.

use std::time::Duration;

use tokio::time::timeout;

use super::{
    Answer, CheckType, Facts, Fault, Place, Verdict,
    connect::connect,
    farewell::farewell,
    tls_client::{self, CA, CERT, KEY, SERVER_NAME, TLS, TlsClient, TlsSession},
};
use crate::document::{AnyKey, Keys};

/// A TLS handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    client: TlsClient,
}

impl CheckType for Tls {
    const NAME: &'static str = "tls";
    const KEYS: &'static [&'static dyn AnyKey] = &[&TLS, &CA, &SERVER_NAME, &CERT, &KEY];
    type Session = TlsSession;

    fn read(keys: &Keys<'_>) -> Self {
        Self { client: TlsClient::read_always(keys) }
    }

    fn check_files(&self) -> Result<(), String> {
        self.client.check_files()
    }

    async fn run(&self, session: &mut TlsSession, place: Place, limit: Duration) -> Verdict {
        let handshake = async { self.client.handshake(session, connect(place).await?, place.address).await };
        match timeout(limit, handshake).await.unwrap_or(Err(Fault::Silent)) {
            Ok(mut stream) => {
                let certificate_ends = tls_client::certificate_ends(&stream);
                let version = stream.get_ref().1.protocol_version();
                let version = version.and_then(|it| Some(it.as_str()?.replace("TLSv1_", "TLS 1.")));
                let text = version.unwrap_or_else(|| "TLS".to_owned());
                let verdict = Verdict::now(Ok(Answer { text, facts: Facts { certificate_ends, ..Facts::default() } }));
                farewell(&mut stream).await;
                verdict
            }
            Err(fault) => Verdict::now(Err(fault)),
        }
    }
}
