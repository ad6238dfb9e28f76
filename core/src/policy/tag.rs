//! The first bytes of all notes: no two kinds have the same, so that whoever hears a policy of another kind takes it for
//! nothing instead of reading it as one of its own.

macro_rules! tags {
    ($($(#[$what:meta])* $name:ident = $byte:literal,)*) => {
        /// What a note is, and of which policy. The compiler refuses two of the same byte.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub(super) enum Tag {
            $($(#[$what])* $name = $byte,)*
        }

        impl Tag {
            /// Which one this is; `None` if it is none.
            pub(super) fn of(byte: u8) -> Option<Self> {
                match byte {
                    $($byte => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

// 1 and 2 were given twice by earlier releases, and are none now.
tags! {
    /// Gossip: a part of a message to be added to what is known of its sender.
    GossipDifference = 0x11,
    /// Gossip: a part of a whole model.
    GossipWhole = 0x12,
    /// Gossip: a request for a whole model.
    GossipAsk = 0x13,
    /// Push-sum: a request for all that was given so far.
    PushAsk = 0x14,
    /// Push-sum: a part of what is given.
    PushDifference = 0x15,
    /// Push-sum: a part of all that was given so far.
    PushWhole = 0x16,
    /// DASO: a part of a site's model, in full precision.
    SnapshotFull = 0x21,
    /// DASO: the same in bfloat16.
    SnapshotBf16 = 0x22,
    /// DASO: the same in binary16.
    SnapshotF16 = 0x23,
    /// DASO: a part of a mean of sites' models, in full precision.
    MeanFull = 0x24,
    /// DASO: the same in bfloat16.
    MeanBf16 = 0x25,
    /// DASO: the same in binary16.
    MeanF16 = 0x26,
    /// FDA: a state.
    DriftState = 0x31,
    /// FDA: a call to average.
    DriftCall = 0x32,
}
