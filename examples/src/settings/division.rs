//! Into which sites nodes are divided.

use kronfleet_core::transport::NodeId;
use std::fmt;
use std::str::FromStr;

/// Into which sites nodes are divided, neighbours together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Division {
    /// Into so many, as even as can be.
    Count(u32),
    /// Into sites of so many nodes.
    Sizes(Vec<u32>),
}

impl Default for Division {
    fn default() -> Self {
        Self::Count(2)
    }
}

impl FromStr for Division {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let sizes: Option<Vec<u32>> = text.split('+').map(|size| size.parse().ok().filter(|size| *size > 0)).collect();
        match sizes.as_deref() {
            Some(&[count]) => Ok(Self::Count(count)),
            Some(sizes) => Ok(Self::Sizes(sizes.to_vec())),
            None => {
                Err(format!("{text:?} is neither a number of sites nor sizes such as 3+2+1, of at least one node each"))
            }
        }
    }
}

impl fmt::Display for Division {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(formatter, "{count}"),
            Self::Sizes(sizes) => {
                let sizes: Vec<String> = sizes.iter().map(u32::to_string).collect();
                formatter.write_str(&sizes.join("+"))
            }
        }
    }
}

impl Division {
    /// Whether so many nodes can be divided so.
    ///
    /// # Errors
    /// If sites would be empty, or have more or fewer nodes than there are.
    pub fn check(&self, nodes: u32) -> Result<(), String> {
        match self {
            Self::Count(count) if *count > nodes => {
                Err(format!("--sites {count} of --nodes {nodes} would have empty ones: ask for fewer"))
            }
            Self::Sizes(sizes) => match sizes.iter().map(|&size| u64::from(size)).sum::<u64>() {
                sum if sum != u64::from(nodes) => {
                    Err(format!("--sites {self} have {sum} nodes, but --nodes is {nodes}: make them the same"))
                }
                _ => Ok(()),
            },
            Self::Count(_) => Ok(()),
        }
    }

    /// The nodes of each site, of so many that can be [divided so](Self::check).
    pub fn groups(&self, nodes: u32) -> Vec<Vec<NodeId>> {
        match self {
            Self::Count(count) => {
                let mut sites = vec![Vec::new(); *count as usize];
                for node in 0..nodes {
                    let site = u64::from(node) * u64::from(*count) / u64::from(nodes);
                    sites[usize::try_from(site).expect("there are so many")].push(NodeId(node));
                }
                sites
            }
            Self::Sizes(sizes) => {
                let mut nodes = (0..nodes).map(NodeId);
                sizes.iter().map(|&size| nodes.by_ref().take(size as usize).collect()).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_has_one_site_of_the_size_that_is_asked_for() {
        for (text, nodes, expected) in [
            ("2", 5, vec![vec![0, 1, 2], vec![3, 4]]),
            ("3+2", 5, vec![vec![0, 1, 2], vec![3, 4]]),
            ("1+3+1", 5, vec![vec![0], vec![1, 2, 3], vec![4]]),
            ("1", 2, vec![vec![0, 1]]),
        ] {
            let division: Division = text.parse().expect(text);
            assert_eq!((division.to_string().as_str(), division.check(nodes)), (text, Ok(())));
            let groups = division.groups(nodes);
            assert_eq!(
                groups.iter().map(|site| site.iter().map(|node| node.0).collect()).collect::<Vec<Vec<u32>>>(),
                expected
            );
        }
    }

    #[test]
    fn divisions_that_nodes_do_not_fit_are_refused_with_both_numbers() {
        for text in ["", "0", "2+0", "2,1", "a", "+", "3+"] {
            assert!(text.parse::<Division>().is_err_and(|error| error.contains("3+2+1")), "{text}");
        }
        for (text, nodes, says) in
            [("3", 2, ["3", "--nodes 2"]), ("2+2", 5, ["4 nodes", "5"]), ("2+2", 3, ["2+2", "3"])]
        {
            let error = text.parse::<Division>().expect(text).check(nodes).expect_err(text);
            assert!(says.iter().all(|says| error.contains(says)), "{error}");
        }
    }
}
