//! Why a request is refused.

/// A refusal. The API shows it as a problem document (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Determines status, title and exit code.
    pub kind: ProblemKind,
    /// What is wrong, with the names that the operator gave.
    pub detail: String,
    /// Mistakes in a configuration file, `file:line:column: message`.
    pub mistakes: Vec<String>,
}

/// Each kind has one HTTP status and one exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    /// 400, exit 2: the request is invalid.
    Invalid,
    /// 404, exit 3: no service or backend has this name.
    NotFound,
    /// 409, exit 5: a conflict with what exists.
    Conflict,
    /// 422, exit 6: the file has mistakes, which are listed.
    InvalidConfiguration,
    /// 500, exit 1: the operation failed.
    Failed,
    /// 503, exit 1: what it depends on cannot be reached.
    Unavailable,
}

impl Problem {
    /// A problem that is not about a configuration file, so without mistakes.
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), mistakes: Vec::new() }
    }
}
