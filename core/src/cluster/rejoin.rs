//! How nodes that were away come back, and what happens where too few are left.

/// What a contribution counts whose node has missed rounds.
///
/// The proposer of a round applies it; a node whose last certificate is one that another member's history already
/// contains has missed as many rounds as that history is longer. Histories that parted are not behind one another:
/// they merge with full weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Rejoin {
    /// As much as everybody else's, however stale it is (Yu & Tatebe 2024).
    #[default]
    FullWeight,
    /// Its weight divided by one more than the rounds it has missed: the staleness discount of Xie, Koyejo & Gupta
    /// (2019, *Asynchronous federated optimization*, `(t − τ + 1)^−a` with `a = 1`).
    ByProgress,
    /// Nothing: it first takes over the newest committed state; what it trained alone is lost.
    HealFirst,
}

/// What a node does where fewer nodes are left than a round needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Shortage {
    /// It goes on without a round.
    #[default]
    GoOn,
    /// It waits, and says for whom, as long as those that are missing may still come: until somebody is finished.
    Wait,
}
