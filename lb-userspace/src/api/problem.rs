//! The table from the kind of a problem to its status, title and exit code, and RFC 9457 documents.

use axum::{
    extract::rejection::{JsonRejection, QueryRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

use crate::{
    exit::Exit,
    problem::{Problem, ProblemKind},
    view,
};

/// RFC 9457, 3.
pub const CONTENT_TYPE: &str = "application/problem+json";
/// The problem adds nothing to the HTTP status (RFC 9457, 4.2.1).
const ABOUT_BLANK: &str = "about:blank";

/// How the API and the CLI show a kind of problem.
pub struct Row {
    /// RFC 9457 requires a URI that identifies the kind.
    pub uri: &'static str,
    pub status: StatusCode,
    pub title: &'static str,
    pub exit: Exit,
}

pub const KINDS: [ProblemKind; 6] = [
    ProblemKind::Invalid,
    ProblemKind::NotFound,
    ProblemKind::Conflict,
    ProblemKind::InvalidConfiguration,
    ProblemKind::Failed,
    ProblemKind::Unavailable,
];

/// The table.
#[rustfmt::skip]
pub const fn row(kind: ProblemKind) -> Row {
    let (uri, status, title, exit) = match kind {
        ProblemKind::Invalid =>
            ("urn:xlb:problem:invalid", StatusCode::BAD_REQUEST, "Invalid request", Exit::Usage),
        ProblemKind::NotFound =>
            ("urn:xlb:problem:not-found", StatusCode::NOT_FOUND, "Not found", Exit::NotFound),
        ProblemKind::Conflict =>
            ("urn:xlb:problem:conflict", StatusCode::CONFLICT, "Conflict", Exit::Conflict),
        ProblemKind::InvalidConfiguration =>
            ("urn:xlb:problem:invalid-configuration", StatusCode::UNPROCESSABLE_ENTITY, "Invalid configuration", Exit::InvalidConfiguration),
        ProblemKind::Failed =>
            ("urn:xlb:problem:failed", StatusCode::INTERNAL_SERVER_ERROR, "Failed", Exit::Failed),
        ProblemKind::Unavailable =>
            ("urn:xlb:problem:unavailable", StatusCode::SERVICE_UNAVAILABLE, "Unavailable", Exit::Failed),
    };
    Row { uri, status, title, exit }
}

/// The exit code of a command that gets this document.
pub fn exit(problem: &view::Problem) -> Exit {
    if let Some(row) = KINDS.into_iter().map(row).find(|row| row.uri == problem.kind) {
        return row.exit;
    }
    let is_absent = [StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT]
        .iter()
        .any(|status| status.as_u16() == problem.status);
    if is_absent { Exit::Unreachable } else { Exit::Failed }
}

/// A problem document as a response.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal(view::Problem);

impl Refusal {
    /// An error for which HTTP has a status, and which is not about an object of xlb.
    pub fn http(status: StatusCode, detail: impl Into<String>) -> Self {
        Self(view::Problem {
            kind: ABOUT_BLANK.to_owned(),
            title: status.canonical_reason().unwrap_or_default().to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            errors: Vec::new(),
        })
    }

    pub fn invalid(detail: impl Into<String>) -> Self {
        Problem::new(ProblemKind::Invalid, detail).into()
    }

    pub fn not_found(detail: impl Into<String>) -> Self {
        Problem::new(ProblemKind::NotFound, detail).into()
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        let row = row(problem.kind);
        Self(view::Problem {
            kind: row.uri.to_owned(),
            title: row.title.to_owned(),
            status: row.status.as_u16(),
            detail: problem.detail,
            errors: problem.mistakes,
        })
    }
}

impl From<JsonRejection> for Refusal {
    fn from(rejection: JsonRejection) -> Self {
        match rejection.status() {
            status @ (StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNSUPPORTED_MEDIA_TYPE) => {
                Self::http(status, rejection.body_text())
            }
            _ => Self::invalid(rejection.body_text()),
        }
    }
}

impl From<QueryRejection> for Refusal {
    fn from(rejection: QueryRejection) -> Self {
        Self::invalid(rejection.body_text())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, [(header::CONTENT_TYPE, CONTENT_TYPE)], axum::Json(self.0)).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_own_uri_and_status() {
        for (index, kind) in KINDS.into_iter().enumerate() {
            for other in &KINDS[index + 1..] {
                assert_ne!(row(kind).uri, row(*other).uri);
                assert_ne!(row(kind).status, row(*other).status);
            }
        }
    }

    #[test]
    fn each_kind_is_in_the_document() {
        let document = include_str!("../../../docs/api.md");

        for Row { uri, status, exit, .. } in KINDS.map(row) {
            let row = format!("| `{uri}` | {} | {} |", status.as_u16(), exit.code());
            assert!(document.contains(&row), "docs/api.md lacks {row}");
        }
    }

    #[test]
    fn the_exit_code_survives_the_document() {
        for kind in KINDS {
            let Refusal(document) = Problem::new(kind, "why").into();

            assert_eq!(exit(&document), row(kind).exit);
        }
    }

    #[test]
    fn a_document_of_http_alone_is_a_failure_or_says_that_the_controller_is_away() {
        let Refusal(stopping) = Refusal::http(StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping");
        assert_eq!(exit(&stopping), Exit::Unreachable);

        let Refusal(document) = Refusal::http(StatusCode::NOT_FOUND, "no such page");

        assert_eq!((document.kind.as_str(), document.title.as_str()), ("about:blank", "Not Found"));
        assert_eq!(exit(&document), Exit::Failed);
    }
}
