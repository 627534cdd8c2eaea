//! The status with which a call ends: `grpc-status` and `grpc-message`. No I/O.

use percent_encoding::percent_decode;

use crate::{
    named::{Named as _, named},
    text::quote,
};

/// The codes of gRPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Code {
    Ok,
    Cancelled,
    Unknown,
    InvalidArgument,
    DeadlineExceeded,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    Aborted,
    OutOfRange,
    Unimplemented,
    Internal,
    Unavailable,
    DataLoss,
    Unauthenticated,
}

named!(Code {
    Ok = "OK",
    Cancelled = "CANCELLED",
    Unknown = "UNKNOWN",
    InvalidArgument = "INVALID_ARGUMENT",
    DeadlineExceeded = "DEADLINE_EXCEEDED",
    NotFound = "NOT_FOUND",
    AlreadyExists = "ALREADY_EXISTS",
    PermissionDenied = "PERMISSION_DENIED",
    ResourceExhausted = "RESOURCE_EXHAUSTED",
    FailedPrecondition = "FAILED_PRECONDITION",
    Aborted = "ABORTED",
    OutOfRange = "OUT_OF_RANGE",
    Unimplemented = "UNIMPLEMENTED",
    Internal = "INTERNAL",
    Unavailable = "UNAVAILABLE",
    DataLoss = "DATA_LOSS",
    Unauthenticated = "UNAUTHENTICATED",
});

/// Has the call succeeded? The error is for the operator.
pub fn judge(code: &[u8], message: &[u8]) -> Result<(), String> {
    let number: Option<usize> = std::str::from_utf8(code).ok().and_then(|code| code.parse().ok());
    let known = Code::ALL.iter().find(|it| Some(**it as usize) == number);
    let name = match known {
        Some(Code::Ok) => return Ok(()),
        Some(Code::Unimplemented) => "the server has no grpc.health.v1: UNIMPLEMENTED".to_owned(),
        Some(code) => code.name().to_owned(),
        None => format!("grpc-status {}", quote(&String::from_utf8_lossy(code))),
    };
    if message.is_empty() {
        return Err(name);
    }
    Err(format!("{name}: {}", quote(&percent_decode(message).decode_utf8_lossy())))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_code_but_ok_is_a_failure_with_its_name() {
        for (code, message, told) in [
            ("0", "ignored", Ok(())),
            ("5", "unknown service", Err("NOT_FOUND: `unknown service`")),
            ("14", "", Err("UNAVAILABLE")),
            ("12", "", Err("the server has no grpc.health.v1: UNIMPLEMENTED")),
            ("16", "a%20b%C3%A4%", Err("UNAUTHENTICATED: `a bä%`")),
            ("17", "", Err("grpc-status `17`")),
            ("-1", "x", Err("grpc-status `-1`: `x`")),
            ("", "", Err("grpc-status ``")),
        ] {
            assert_eq!(judge(code.as_bytes(), message.as_bytes()), told.map_err(str::to_owned), "{code}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_short_and_printable(
            code in proptest::collection::vec(any::<u8>(), 0..100),
            message in proptest::collection::vec(any::<u8>(), 0..500),
        ) {
            if let Err(told) = judge(&code, &message) {
                prop_assert!(told.chars().count() < 250 && !told.contains(char::is_control), "{:?}", told);
            }
        }
    }
}
