//! The laws of backends, tried on a device.

use anyhow::Error;
use core::cell::RefCell;
use kronfleet_conformance::backend::laws;
use kronfleet_conformance::check::Check;
use kronfleet_core::backend::Backend;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

/// What came of a law.
pub(crate) enum Outcome {
    /// It held in all cases.
    Held,
    /// It did not; the smallest case.
    Broken(String),
    /// No backend could be made to try it on.
    Unmade(String),
}

/// What came of all laws.
pub(crate) struct Tried {
    /// By name, in order.
    pub(crate) outcomes: Vec<(&'static str, Outcome)>,
    /// Cases of each.
    pub(crate) cases: u32,
    /// For all of them.
    pub(crate) seconds: f64,
}

impl Tried {
    /// How many do not hold.
    pub(crate) fn broken(&self) -> usize {
        self.outcomes.iter().filter(|(_, outcome)| !matches!(outcome, Outcome::Held)).count()
    }
}

/// Tries all laws, telling how far it has come.
pub(crate) fn try_all<B, E>(make: &dyn Fn() -> Result<B, E>, cases: u32) -> Tried
where
    B: Backend,
    E: Into<Error>,
{
    let started = Instant::now();
    let unmade = RefCell::new(None);
    let make = || {
        make().unwrap_or_else(|error| {
            let error = format!("{:#}", error.into());
            *unmade.borrow_mut() = Some(error.clone());
            panic!("{error}")
        })
    };
    // Some laws ask for panics; those that break a law are in what it says.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let check = Check { cases, ..Check::default() };
    let laws = laws::<B>();
    let (count, mut outcomes) = (laws.len(), Vec::new());
    for (number, (name, law)) in (1..).zip(laws) {
        eprintln!("  law {number} of {count}: {name}");
        let held = catch_unwind(AssertUnwindSafe(|| law(&make, &check)));
        let outcome = match (held, unmade.take()) {
            (_, Some(error)) => Outcome::Unmade(error),
            (Ok(Ok(())), None) => Outcome::Held,
            (Ok(Err(broken)), None) => Outcome::Broken(broken.to_string()),
            (Err(_), None) => Outcome::Broken("it panics".to_owned()),
        };
        let lost = matches!(outcome, Outcome::Unmade(_));
        outcomes.push((name, outcome));
        if lost {
            break;
        }
    }
    std::panic::set_hook(hook);
    Tried { outcomes, cases, seconds: started.elapsed().as_secs_f64() }
}
