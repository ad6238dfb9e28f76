//! Which rounds may commit while nodes cannot reach each other.

/// Which rounds may commit while nodes cannot reach each other. All nodes of a run have the same mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Mode {
    /// Whoever can reach each other goes on; histories that part merge when they meet again.
    #[default]
    Available,
    /// One history: a commit needs a majority of all configured nodes, each of which has made certificate and result
    /// durable. Without a majority nothing commits. Needs a [`Storage`](crate::storage::Storage).
    Strict,
}
