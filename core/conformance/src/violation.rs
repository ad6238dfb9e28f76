//! How a law says that it was broken.

use std::fmt;

/// A law that was broken, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The name of the law.
    pub law: &'static str,
    /// What was expected and what happened.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.law, self.what)
    }
}

impl std::error::Error for Violation {}

/// What a law answers.
pub type Verdict = Result<(), Violation>;
