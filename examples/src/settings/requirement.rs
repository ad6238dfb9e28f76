//! What a result must hold, for scripts: `accuracy>=0.86`.

use serde_json::Value;
use std::fmt;
use std::str::FromStr;

/// A bound on a figure of the result, by its key in the line of JSON.
#[derive(Clone, Debug, PartialEq)]
pub struct Requirement {
    key: String,
    least: bool,
    bound: f64,
}

impl Requirement {
    /// Whether the result keeps it; else what stands there.
    ///
    /// # Errors
    /// With the figure found, or the keys there are.
    pub fn check(&self, result: &Value) -> Result<(), String> {
        let figure = result.get(&self.key);
        match figure.and_then(Value::as_f64) {
            // A NaN keeps nothing.
            Some(figure) if (self.least && figure >= self.bound) || (!self.least && figure <= self.bound) => Ok(()),
            Some(figure) => Err(format!("--require {self}: it is {figure}")),
            None if figure.is_some_and(Value::is_null) => Err(format!("--require {self}: there is none")),
            None => self.is_known(result).and(Err(format!("--require {self}: that is no number"))),
        }
    }

    /// Whether results like this one have such a figure, be it one or none yet.
    ///
    /// # Errors
    /// With the keys there are.
    pub fn is_known(&self, result: &Value) -> Result<(), String> {
        let figures = result.as_object().into_iter().flatten();
        let figures = figures.filter(|(_, value)| value.is_number() || value.is_null()).map(|(key, _)| key.as_str());
        let known: Vec<&str> = figures.collect();
        if known.contains(&self.key.as_str()) {
            return Ok(());
        }
        Err(format!("--require {self}: no such figure; there are {}", known.join(", ")))
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.key, if self.least { ">=" } else { "<=" }, self.bound)
    }
}

impl FromStr for Requirement {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let split = |sign, least| text.split_once(sign).map(|(key, bound)| (key, least, bound));
        let parts = split(">=", true).or_else(|| split("<=", false));
        let read = |(key, least, bound): (&str, bool, &str)| {
            let bound = bound.trim().parse().ok().filter(|bound: &f64| bound.is_finite())?;
            Some(Self { key: key.trim().to_owned(), least, bound })
        };
        parts.and_then(read).ok_or_else(|| format!("{text:?} demands nothing; write it as accuracy>=0.86"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_kept_or_not() {
        let result = serde_json::json!({ "accuracy": 0.87, "rounds": 57, "failure": null });
        let check = |text: &str| text.parse::<Requirement>().expect("a requirement").check(&result);
        for kept in ["accuracy>=0.86", "accuracy <= 0.87", "rounds>=57"] {
            assert_eq!(check(kept), Ok(()));
        }
        for (broken, says) in [
            ("accuracy>=0.88", "it is 0.87"),
            ("rounds<=56", "it is 57"),
            ("failure>=0", "there is none"),
            ("accurracy>=0", "there are accuracy, failure, rounds"),
        ] {
            assert!(check(broken).is_err_and(|found| found.contains(says)), "{broken}");
        }
        for text in ["accuracy", "accuracy>0.8", "accuracy>=high", "accuracy>=nan"] {
            assert!(text.parse::<Requirement>().is_err_and(|says| says.contains("accuracy>=0.86")), "{text}");
        }
    }
}
