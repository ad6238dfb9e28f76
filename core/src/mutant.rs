//! Deliberate mistakes, one at a time, for tests of the tests.
//!
//! Only with the feature `mutants`, which no shipped build has: without it, `mutant!` is `false` and nothing of this is
//! compiled. A simulation that does not notice a mutant would not notice the same mistake of a programmer either.

/// Whether this mistake is to be made.
#[cfg(feature = "mutants")]
macro_rules! mutant {
    ($name:ident) => {
        crate::mutant::Mutant::$name.is_chosen()
    };
}
/// Whether this mistake is to be made: never.
#[cfg(not(feature = "mutants"))]
macro_rules! mutant {
    ($name:ident) => {
        false
    };
}
pub(crate) use mutant;

#[cfg(feature = "mutants")]
pub use catalogue::Mutant;

#[cfg(feature = "mutants")]
mod catalogue {
    use core::sync::atomic::{AtomicUsize, Ordering};

    /// The mistake that is made, by its place among all, from 1.
    static CHOSEN: AtomicUsize = AtomicUsize::new(0);

    macro_rules! mutants {
        ($($name:ident: $text:literal,)*) => {
            /// A deliberate mistake.
            #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
            pub enum Mutant {
                $(#[doc = $text] $name,)*
            }

            impl Mutant {
                /// All of them.
                pub const ALL: &[Self] = &[$(Self::$name,)*];

                /// Whether it is a mistake in sharing steps, of which rounds know nothing.
                pub fn is_of_shared_steps(self) -> bool {
                    matches!(
                        self,
                        Self::ReducedTwice
                            | Self::OwnersSwapped
                            | Self::BucketShared
                            | Self::BatchIgnored
                            | Self::ShareAbandoned
                            | Self::PartTraced
                            | Self::BiasMisplaced
                            | Self::StatisticsScattered
                            | Self::VectorsKept
                            | Self::RetractionForgotten
                            | Self::StageForgotten
                            | Self::EarlyForgotten
                    )
                }

                /// What is done wrong.
                pub fn text(self) -> &'static str {
                    match self {
                        $(Self::$name => $text,)*
                    }
                }
            }
        };
    }

    mutants! {
        ApplyAtDone: "A member applies its result when it is done instead of when it is committed.",
        CommitOnSubset: "The proposer commits when all members but one are done.",
        OldAttempt: "Pieces and Done of an older attempt are taken for those of the one under way.",
        DoubleReady: "A node that says twice that it is ready counts twice.",
        AbsentWeight: "The weight of an absent node stays in the denominator.",
        ZombieAccepted: "A peer of an earlier start is taken for a new one.",
        HealUnchecked: "A donor's state is taken over without a look at its digest.",
        CommitTwice: "A commit that comes again is applied again.",
        AbortAfterCommit: "The proposer does not forget an attempt that it has committed, and aborts it later.",
        DoubtApplies: "A member in doubt applies its result when nobody answers.",
        SequenceReused: "The proposer numbers its next attempt like the one before.",
        StaleInvented: "Every parent is called stale.",
        NotFinite: "Values are not looked at before they are committed.",
        NobodyNamed: "An attempt that fails for a value that is not finite names nobody.",
        InboxHole: "A message counts as whole although its last frame is missing.",
        InboxEpoch: "A new stream goes on where the former one ended.",
        OutboxSilent: "A frame that nobody acknowledged is never sent again.",
        OutboxBlind: "A frame counts as acknowledged when a later one is.",
        DetectorPatient: "A silent peer is never lost.",
        IncarnationKept: "A later start of a peer goes on with the streams of the former one.",
        HealForever: "A donor that is lost or stands still is waited for.",
        LateAlone: "Whoever comes back after all others have finished trains alone instead of being healed.",
        GoodbyeForgotten: "A peer that has said goodbye is taken for one that is silent.",
        DepartureUntold: "Whoever comes later is not told who has left.",
        QuarantineIgnored: "A peer that has to sit out takes part all the same.",
        MinorityCommits: "Strict mode: less than a majority commits, so that two proposers can.",
        PromiseBroken: "Strict mode: a node accepts what is older than its promise.",
        RecoveryForgets: "Strict mode: a recovery does not finish what was accepted.",
        FormerInherits: "Strict mode: a refused former self applies what was decided meanwhile.",
        DecayUnseen: "Strict mode: what stands on a disk is read without a look at its check sum.",
        DigestIgnored: "The proposer commits although the members' results have different digests.",
        TieGuessed: "Of results of which none is in the majority, the proposer takes all for right.",
        OwnerForged: "A member sends on what a piece's owner sent it, as if the piece were its own.",
        AcknowledgedKept: "A message that was acknowledged is kept in memory.",
        CheckpointForgets: "Whoever waits for a round is read back from a checkpoint as one that trains.",
        LineageIgnored: "Differences are told from older averages whether or not others have the same.",
        SamplesTwice: "Samples that were counted are counted again.",
        LossHidden: "Samples that healing loses are not reported.",
        ReducedTwice: "A member's own statistics are added to the mean that already has them.",
        OwnersSwapped: "The owner of A decomposes G, and that of G decomposes A.",
        BucketShared: "The directions of two owners that have one layer each go into one bucket.",
        ShareAbandoned: "Whoever is lost in a round in the midst of an epoch leaves work that nobody does.",
        BatchIgnored: "The mean over members takes no account of how many samples each has.",
        PartTraced: "The damping of a factor in diagonal blocks goes by the trace of the first of them.",
        BiasMisplaced: "The bias's row of a factor in diagonal blocks is in the first of them instead of the last.",
        StatisticsScattered: "Means of statistics that came during the passes are written to the gradient, too.",
        VectorsKept: "Holders of Eva's vectors compute with those of their own batches.",
        RetractionForgotten: "What was before the last shared step is not in a checkpoint.",
        StageForgotten: "Which letters of a shared step are out is not in a checkpoint.",
        EarlyForgotten: "Messages that came before the stage they are of are not in a checkpoint.",
    }

    impl Mutant {
        /// Makes this mistake from now on, and no other; `None` makes none.
        ///
        /// It holds for the whole program, as there is no other way into every corner of it.
        pub fn choose(mutant: Option<Self>) {
            CHOSEN.store(mutant.map_or(0, |mutant| mutant as usize + 1), Ordering::SeqCst);
        }

        pub(crate) fn is_chosen(self) -> bool {
            CHOSEN.load(Ordering::Relaxed) == self as usize + 1
        }
    }
}
