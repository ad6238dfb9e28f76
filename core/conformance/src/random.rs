//! Asking a law for random inputs.

use crate::violation::{Verdict, Violation};
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};

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
