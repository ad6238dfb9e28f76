//! Endless mini-batches over a node's share of the samples.

use kronfleet_core::seed::Seed;

/// Draws the samples of a share in random order, each once per epoch, epoch after epoch.
///
/// A batch may begin in one epoch and end in the next: no sample is ever left out. The order of each epoch
/// depends only on the seed and the number of the epoch, so a [`Cursor`] is all a checkpoint needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sampler {
    share: Box<[u32]>,
    order: Box<[u32]>,
    seed: Seed,
    drawn: u64,
}

/// How far a [`Sampler`] has come: the number of samples drawn since its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cursor(pub u64);

impl Sampler {
    /// Draws from `share` by `seed`, from the beginning.
    ///
    /// # Panics
    /// If `share` is empty.
    #[track_caller]
    pub fn new(share: &[u32], seed: Seed) -> Self {
        assert!(!share.is_empty(), "a sampler needs samples");
        let mut sampler = Self { share: share.into(), order: share.into(), seed, drawn: 0 };
        sampler.shuffle();
        sampler
    }

    /// Draws one sample for each element of `batch`, and returns the number of the first draw.
    ///
    /// Nothing is allocated.
    pub fn draw(&mut self, batch: &mut [u32]) -> u64 {
        let first = self.drawn;
        let mut rest = batch;
        while !rest.is_empty() {
            let ready = &self.order[self.position()..];
            let count = ready.len().min(rest.len());
            let (now, later) = rest.split_at_mut(count);
            now.copy_from_slice(&ready[..count]);
            self.drawn += count as u64;
            if self.position() == 0 {
                self.shuffle();
            }
            rest = later;
        }
        first
    }

    /// How many samples one epoch has.
    pub fn epoch_len(&self) -> usize {
        self.share.len()
    }

    /// How many epochs have been drawn completely.
    pub fn epoch(&self) -> u64 {
        self.drawn / self.share.len() as u64
    }

    /// How far this sampler has come, for a checkpoint.
    pub fn cursor(&self) -> Cursor {
        Cursor(self.drawn)
    }

    /// Goes on from where `cursor` was taken, of a sampler with the same share and seed.
    pub fn restore(&mut self, cursor: Cursor) {
        self.drawn = cursor.0;
        self.shuffle();
    }

    fn position(&self) -> usize {
        // Smaller than the share's length, which is a `usize`.
        (self.drawn % self.share.len() as u64) as usize
    }

    fn shuffle(&mut self) {
        self.order.copy_from_slice(&self.share);
        self.seed.derive("epoch", self.epoch()).random().shuffle(&mut self.order);
    }
}
