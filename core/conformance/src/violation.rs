//! How a law says that it was broken.

use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};
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

/// Asks `law` for `cases` random inputs; the violation names the smallest input that breaks it.
pub fn for_random<S: proptest::strategy::Strategy>(
    name: &'static str,
    cases: u32,
    inputs: S,
    mut law: impl FnMut(S::Value) -> Result<(), String>,
) -> Verdict {
    // A suite has no source file of its own in the implementer's crate to keep failures beside.
    let config = Config { cases, failure_persistence: None, max_shrink_time: 5_000, ..Config::default() };
    let law = std::cell::RefCell::new(&mut law);
    let outcome = TestRunner::new(config).run(&inputs, |input| (law.borrow_mut())(input).map_err(TestCaseError::fail));
    outcome.map_err(|error| Violation {
        law: name,
        what: match error {
            TestError::Fail(reason, input) => format!("{reason} with {input:?}"),
            TestError::Abort(reason) => format!("gave up: {reason}"),
        },
    })
}
