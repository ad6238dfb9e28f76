//! What a shared step brings on its way, apart from how it travels.

use alloc::vec::Vec;

/// Values that members exchange within a step, and where they go.
///
/// All members make the letters of a stage in the same order; a member's own values are in its letter when it leaves, and
/// what has become of them when it is answered.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Letter<S> {
    /// Who gets what.
    pub route: Route,
    /// The values; of those who only receive, memory of the same length.
    pub values: Vec<S>,
}

/// The letters of a stage.
pub type Letters<S> = Vec<Letter<S>>;

/// Who has a part in a [`Letter`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Route {
    /// The mean of everybody's values, at member `to` alone or everywhere.
    Mean {
        /// Who gets it, if not everybody.
        to: Option<usize>,
    },
    /// What one member has.
    Broadcast {
        /// Whose values.
        from: usize,
        /// Who gets them; not `from`.
        to: Vec<usize>,
    },
}

impl Route {
    /// Whether a member has a part.
    pub fn includes(&self, member: usize) -> bool {
        match self {
            Self::Mean { .. } => true,
            Self::Broadcast { from, to } => *from == member || to.contains(&member),
        }
    }
}
