//! The messages of `grpc.health.v1.Health/Check`, after the prefix that gRPC gives them. No I/O.
//!
//! ```proto
//! message HealthCheckRequest { string service = 1; }
//! message HealthCheckResponse { ServingStatus status = 1; }
//! ```

use crate::named::{Named as _, named};

/// Whether the message is compressed, and its length in four bytes.
const PREFIX: usize = 5;
/// Maximum length of a response with its prefix.
pub const MAX_RESPONSE: usize = 64 * 1024;

/// The number of the only field of both messages.
const FIELD: u64 = 1;
/// How fields are written: their types in protobuf.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const DELIMITED: u64 = 2;
const FIXED32: u64 = 5;

/// What a server says of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServingStatus {
    Unknown,
    Serving,
    NotServing,
    ServiceUnknown,
}

named!(ServingStatus {
    Unknown = "UNKNOWN",
    Serving = "SERVING",
    NotServing = "NOT_SERVING",
    ServiceUnknown = "SERVICE_UNKNOWN",
});

/// Why this is not one response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    #[error("an answer without a message")]
    Missing,
    #[error("a compressed message, which was not asked for")]
    Compressed,
    #[error("a message of more than {} KiB", MAX_RESPONSE / 1024)]
    TooLarge,
    #[error("a message that ends early")]
    CutOff,
    #[error("more than one message")]
    Several,
    #[error("a message that is not a HealthCheckResponse")]
    Malformed,
    #[error("the status {0}, which grpc.health.v1 does not have")]
    Status(u64),
}

/// Asks for this service. Empty: the whole server.
pub fn request(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    // The default value of a field is not written.
    if !service.is_empty() {
        message.push((FIELD << 3 | DELIMITED) as u8);
        put_varint(&mut message, service.len() as u64);
        message.extend(service.as_bytes());
    }
    [&[0], &(message.len() as u32).to_be_bytes()[..], &message].concat()
}

/// Reads the whole body of a response.
pub fn response(body: &[u8]) -> Result<ServingStatus, Wrong> {
    if body.is_empty() {
        return Err(Wrong::Missing);
    }
    let (prefix, message) = body.split_first_chunk::<PREFIX>().ok_or(Wrong::CutOff)?;
    let [compressed, length @ ..] = *prefix;
    if compressed != 0 {
        return Err(Wrong::Compressed);
    }
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > MAX_RESPONSE - PREFIX {
        return Err(Wrong::TooLarge);
    }
    if length != message.len() {
        return Err(if length < message.len() { Wrong::Several } else { Wrong::CutOff });
    }
    let number = status_of(message).ok_or(Wrong::Malformed)?;
    let status = ServingStatus::ALL.iter().find(|status| **status as u64 == number);
    status.copied().ok_or(Wrong::Status(number))
}

/// The field, whose last value counts. Unknown fields are skipped.
fn status_of(mut message: &[u8]) -> Option<u64> {
    let mut status = 0;
    while !message.is_empty() {
        let key = take_varint(&mut message)?;
        match key & 7 {
            VARINT => {
                let value = take_varint(&mut message)?;
                if key >> 3 == FIELD {
                    status = value;
                }
            }
            FIXED64 => message = message.get(8..)?,
            DELIMITED => {
                let length = usize::try_from(take_varint(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            FIXED32 => message = message.get(4..)?,
            // Groups, which are deprecated, and types that do not exist.
            _ => return None,
        }
        if key >> 3 == 0 || (key >> 3 == FIELD && key & 7 != VARINT) {
            return None;
        }
    }
    Some(status)
}

/// Seven bits in each byte, the lowest ones first. At most ten bytes.
fn take_varint(message: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        number |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn put_varint(message: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        message.push(number as u8 | 0x80);
        number >>= 7;
    }
    message.push(number as u8);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_names_the_service_or_nothing() {
        assert_eq!(request(""), b"\0\0\0\0\0");
        assert_eq!(request("a.B"), b"\0\0\0\0\x05\x0a\x03a.B");
        assert_eq!(&request(&"x".repeat(200))[..8], b"\0\0\0\0\xcb\x0a\xc8\x01");
    }

    #[test]
    fn the_status_is_read_among_other_fields() {
        for (message, status) in [
            (&b"\x08\x01"[..], ServingStatus::Serving),
            (b"\x08\x02", ServingStatus::NotServing),
            (b"\x08\x03", ServingStatus::ServiceUnknown),
            (b"\x08\x00", ServingStatus::Unknown),
            // A default value is not written.
            (b"", ServingStatus::Unknown),
            (b"\x08\x02\x08\x01", ServingStatus::Serving),
            (b"\x12\x02ab\x19\0\0\0\0\0\0\0\0\x08\x81\x00\x25\0\0\0\0\x30\x96\x01", ServingStatus::Serving),
        ] {
            assert_eq!(response(&framed(message)), Ok(status), "{message:?}");
        }
    }

    #[test]
    fn what_is_not_one_response_is_refused() {
        for (body, wrong) in [
            (b"".to_vec(), Wrong::Missing),
            (b"\0\0\0\0".to_vec(), Wrong::CutOff),
            (b"\0\0\0\0\x02\x08".to_vec(), Wrong::CutOff),
            (b"\x01\0\0\0\x02\x08\x01".to_vec(), Wrong::Compressed),
            (b"\0\xff\xff\xff\xff\x08\x01".to_vec(), Wrong::TooLarge),
            ([framed(b"\x08\x01"), framed(b"\x08\x01")].concat(), Wrong::Several),
            (framed(b"\x08\x04"), Wrong::Status(4)),
            (framed(b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), Wrong::Status(u64::MAX)),
            (framed(b"\x08"), Wrong::Malformed),
            (framed(b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), Wrong::Malformed),
            (framed(b"\x0a\x01a"), Wrong::Malformed),
            (framed(b"\x0b\x0c"), Wrong::Malformed),
            (framed(b"\x00\x01"), Wrong::Malformed),
            (framed(b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), Wrong::Malformed),
        ] {
            assert_eq!(response(&body), Err(wrong), "{body:?}");
        }
    }

    proptest! {
        #[test]
        fn a_request_is_read_by_the_same_rules(service in ".{0,300}") {
            let request = request(&service);
            let (prefix, mut message) = request.split_at(PREFIX);

            prop_assert_eq!(u32::from_be_bytes(prefix[1..].try_into().unwrap()) as usize, message.len());
            if !service.is_empty() {
                prop_assert_eq!(take_varint(&mut message), Some(FIELD << 3 | DELIMITED));
                prop_assert_eq!(take_varint(&mut message), Some(service.len() as u64));
            }
            prop_assert_eq!(message, service.as_bytes());
        }

        #[test]
        fn numbers_are_read_as_they_are_written(number in any::<u64>()) {
            let mut written = Vec::new();
            put_varint(&mut written, number);

            prop_assert_eq!(take_varint(&mut written.as_slice()), Some(number));
            for cut in 0..written.len() {
                prop_assert_eq!(take_varint(&mut &written[..cut]), None);
            }
        }

        #[test]
        fn arbitrary_bytes_are_one_response_or_none(
            body in proptest::collection::vec(any::<u8>(), 0..40),
            message in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let _ = response(&body);
            let whole = framed(&message);
            for cut in 1..whole.len() {
                prop_assert_eq!(response(&whole[..cut]), Err(Wrong::CutOff));
            }
            let _ = response(&whole);
        }
    }

    fn framed(message: &[u8]) -> Vec<u8> {
        [&[0], &u32::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat()
    }
}
