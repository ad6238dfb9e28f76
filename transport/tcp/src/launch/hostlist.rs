//! Slurm's lists of hosts, written short: `gpu[01-03,7],login`.

use std::fmt;

/// Hosts that a list may name; more is a mistake.
const MOST: usize = 1 << 16;

/// Why a list of hosts cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostListError {
    /// Brackets do not match.
    Brackets {
        /// The part of the list in question.
        part: String,
    },
    /// What stands in brackets is no range of numbers.
    Range {
        /// What stands there.
        range: String,
    },
    /// The list names more hosts than any machine has.
    Long,
}

impl fmt::Display for HostListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Brackets { part } => write!(f, "brackets that do not match in {part:?}"),
            Self::Range { range } => write!(f, "{range:?} is no range of numbers such as 01-16"),
            Self::Long => write!(f, "more than {MOST} hosts"),
        }
    }
}

impl std::error::Error for HostListError {}

/// All hosts of a list, in its order.
///
/// ```
/// use kronfleet_tcp::launch::expand;
/// assert_eq!(expand("gpu[09-10,3],login").unwrap(), ["gpu09", "gpu10", "gpu3", "login"]);
/// ```
///
/// # Errors
/// If it is no such list.
pub fn expand(list: &str) -> Result<Vec<String>, HostListError> {
    let mut hosts = Vec::new();
    for part in split(list)? {
        let mut names = vec![String::new()];
        let mut rest = part;
        while let Some((before, bracket)) = rest.split_once('[') {
            let (inside, after) = bracket.split_once(']').ok_or(HostListError::Brackets { part: part.into() })?;
            let numbers = ranges(inside)?;
            if names.len().saturating_mul(numbers.len()) > MOST {
                return Err(HostListError::Long);
            }
            let with =
                |name: &String| numbers.iter().map(|number| format!("{name}{before}{number}")).collect::<Vec<_>>();
            names = names.iter().flat_map(with).collect();
            rest = after;
        }
        names.iter_mut().for_each(|name| name.push_str(rest));
        hosts.extend(names.into_iter().filter(|name| !name.is_empty()));
        if hosts.len() > MOST {
            return Err(HostListError::Long);
        }
    }
    Ok(hosts)
}

/// The parts between commas that are not in brackets.
fn split(list: &str) -> Result<Vec<&str>, HostListError> {
    let unmatched = || HostListError::Brackets { part: list.into() };
    let (mut parts, mut start, mut inside) = (Vec::new(), 0, false);
    for (at, character) in list.char_indices() {
        match character {
            '[' if inside => return Err(unmatched()),
            ']' if !inside => return Err(unmatched()),
            '[' | ']' => inside = !inside,
            ',' if !inside => {
                parts.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if inside {
        return Err(unmatched());
    }
    parts.push(&list[start..]);
    Ok(parts)
}

/// All numbers of `01-03,7`, as wide as they are written.
fn ranges(inside: &str) -> Result<Vec<String>, HostListError> {
    let mut numbers = Vec::new();
    for range in inside.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let unreadable = || HostListError::Range { range: range.into() };
        let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
            true => text.parse::<u64>().map_err(|_| unreadable()),
            false => Err(unreadable()),
        };
        let (from, to) = (number(first)?, number(last)?);
        if to < from {
            return Err(unreadable());
        }
        if to - from >= MOST as u64 || numbers.len() > MOST {
            return Err(HostListError::Long);
        }
        numbers.extend((from..=to).map(|number| format!("{number:0width$}", width = first.len())));
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lists_as_slurm_writes_them() {
        assert_eq!(expand("single").unwrap(), ["single"]);
        assert_eq!(expand("a,b-1,c").unwrap(), ["a", "b-1", "c"]);
        assert_eq!(expand("n[1-3]").unwrap(), ["n1", "n2", "n3"]);
        assert_eq!(expand("n[098-101]").unwrap(), ["n098", "n099", "n100", "n101"]);
        assert_eq!(
            expand("r[1-2]c[01-02].site,x").unwrap(),
            ["r1c01.site", "r1c02.site", "r2c01.site", "r2c02.site", "x"]
        );
        assert_eq!(expand("").unwrap(), [""; 0]);
    }

    #[test]
    fn mistakes_are_named() {
        for list in ["a[1", "a1]", "a[[1]]", "a[1]]"] {
            assert!(matches!(expand(list), Err(HostListError::Brackets { .. })), "{list}");
        }
        for list in ["a[]", "a[x]", "a[3-1]", "a[1-]", "a[-1]", "a[99999999999999999999]"] {
            assert!(matches!(expand(list), Err(HostListError::Range { .. })), "{list}");
        }
        assert_eq!(expand("a[0-65536]"), Err(HostListError::Long));
        assert_eq!(expand("a[0-999]b[0-999]"), Err(HostListError::Long));
    }

    proptest! {
        #[test]
        fn any_text_is_a_list_or_a_mistake(list in "[a-c0-9,\\[\\]-]{0,24}") {
            let _ = expand(&list);
        }

        /// What is written out stays as it is.
        #[test]
        fn plain_names_stay(names in proptest::collection::vec("[a-z][a-z0-9.-]{0,8}", 1..10)) {
            prop_assert_eq!(expand(&names.join(",")).unwrap(), names);
        }
    }
}
