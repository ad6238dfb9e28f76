//! How a law is tried: many random cases, the smallest counterexample, and how to see it again.

use core::fmt;
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};

/// How often and from which seed laws are tried.
///
/// [`Check::default`] reads `PROPTEST_CASES` and `PROPTEST_RNG_SEED`; without them every run tries the same cases, so
/// that a law that held yesterday holds today.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Check {
    /// Cases per law.
    pub cases: u32,
    /// What they are drawn from.
    pub seed: u64,
    /// How often a counterexample is made smaller; 0 to learn only that there is one.
    pub shrinking: u32,
}

impl Default for Check {
    fn default() -> Self {
        let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
        Self {
            cases: number("PROPTEST_CASES").and_then(|cases| u32::try_from(cases).ok()).unwrap_or(64),
            seed: number("PROPTEST_RNG_SEED").unwrap_or(1),
            shrinking: 4096,
        }
    }
}

impl Check {
    /// Tries `law` on cases drawn from `strategy`.
    ///
    /// # Errors
    /// With the smallest case found on which the law does not hold, or panics.
    pub fn hold<T: Strategy>(&self, strategy: T, law: impl Fn(T::Value) -> Result<(), String>) -> Result<(), Broken> {
        let config = Config {
            cases: self.cases,
            rng_seed: RngSeed::Fixed(self.seed),
            max_shrink_iters: self.shrinking,
            failure_persistence: None,
            ..Config::default()
        };
        TestRunner::new(config).run(&strategy, |case| law(case).map_err(TestCaseError::fail)).map_err(|error| {
            let facts = match error {
                TestError::Fail(reason, case) => format!("{reason}\n  in the case {case:#?}"),
                TestError::Abort(reason) => format!("no cases could be drawn: {reason}"),
            };
            Broken { facts, check: *self }
        })
    }
}

/// A law that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// What was seen, what was expected, and in which case.
    pub facts: String,
    /// What found it.
    pub check: Check,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Check { cases, seed, .. } = self.check;
        write!(f, "{}\n  see it again with PROPTEST_CASES={cases} PROPTEST_RNG_SEED={seed} cargo test", self.facts)
    }
}

impl core::error::Error for Broken {}
