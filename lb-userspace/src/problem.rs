//! Why a request is refused.

/// A refusal. The API shows it as a problem document (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Decides on status, title and exit code.
    pub kind: ProblemKind,
    /// What is the matter, with the names that the operator gave.
    pub detail: String,
    /// Mistakes of a configuration file, `file:line:column: message`.
    pub mistakes: Vec<String>,
}

/// Each has one HTTP status and one exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    /// 400, exit 2: the request makes no sense.
    Invalid,
    /// 404, exit 3: no service or backend has this name.
    NotFound,
    /// 409, exit 5: it contradicts what is there.
    Conflict,
    /// 422, exit 6: the file has mistakes, which are listed.
    InvalidConfiguration,
    /// 500, exit 1: it was tried and did not work.
    Failed,
}

impl Problem {
    /// A problem that is none of a configuration file: without mistakes.
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), mistakes: Vec::new() }
    }
}
