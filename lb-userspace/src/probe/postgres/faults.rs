//! What an error of a connection to PostgreSQL says of the server.

use std::{error::Error as _, io};

use tokio_postgres::{Error, error::DbError};
use tokio_rustls::rustls;

use super::{super::Fault, encrypted::HandshakeFailed};
use crate::text::shorten;

/// The server cannot work: it stops, has crashed or starts (57P01 to 57P03), system errors (58, 53100, 53200) and internal
/// errors (XX). Everything else is about the login or the query, and says nothing of the server.
const SICK: [&str; 7] = ["57P01", "57P02", "57P03", "58", "XX", "53100", "53200"];

pub fn of(error: &Error) -> Fault {
    let Some(cause) = error.source() else {
        let closed = "closed without an answer".to_owned();
        return if error.is_closed() { Fault::Failed(closed) } else { not_understood() };
    };
    if let Some(said) = cause.downcast_ref::<DbError>() {
        return of_server(said);
    }
    if let Some(HandshakeFailed(fault)) = cause.downcast_ref() {
        return fault.clone();
    }
    // The kinds of errors are private. These are their texts.
    match (error.to_string().as_str(), cause.downcast_ref::<io::Error>()) {
        ("invalid configuration", _) => {
            Fault::Undecided("the server asks for a password: set `password_file`".to_owned())
        }
        ("authentication error", _) => Fault::Undecided(format!("cannot log in: {}", shorten(&cause.to_string()))),
        ("error performing TLS handshake", _) => Fault::Failed("the server has no TLS".to_owned()),
        (_, Some(broken)) => of_connection(broken),
        (_, None) => not_understood(),
    }
}

/// Its answer is not what PostgreSQL answers.
pub fn not_understood() -> Fault {
    Fault::Failed("not PostgreSQL".to_owned())
}

fn of_server(said: &DbError) -> Fault {
    let code = said.code().code();
    let words = format!("{} ({})", shorten(said.message()), shorten(code));
    if SICK.iter().any(|class| code.starts_with(class)) {
        Fault::Failed(words)
    } else {
        Fault::Undecided(format!("the server refuses: {words}"))
    }
}

/// `tokio_postgres` reports what it cannot parse as an error of the connection.
fn of_connection(error: &io::Error) -> Fault {
    if let Some(number) = error.raw_os_error() {
        return io::Error::from_raw_os_error(number).into();
    }
    let is_of_tls = error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
    match error.to_string().as_str() {
        // The texts of tokio, tokio_util and rustls.
        "early eof" => Fault::Failed("closed without an answer".to_owned()),
        "bytes remaining on stream" => Fault::Failed("closed in the middle of an answer".to_owned()),
        text if text.starts_with("peer closed connection") => Fault::Failed("closed without an answer".to_owned()),
        other if is_of_tls || error.kind() == io::ErrorKind::Other => Fault::Failed(shorten(other)),
        _ => not_understood(),
    }
}
