//! Independent jobs on pieces of one buffer, over the threads of a pool.

use core::ops::Range;
use rayon::iter::{IndexedParallelIterator, ParallelIterator};
use rayon::slice::ParallelSliceMut;

/// Scalars that one thread is through with about as fast as another one is woken: less is not handed over.
pub(crate) const PIECE: usize = 1 << 15;

/// A piece of work that writes one range of a buffer, and perhaps one of a second buffer.
pub(crate) trait Piece: Sync {
    /// From the first to one past the last scalar written.
    fn target(&self) -> Range<usize>;
    /// The same in the second buffer, for the job at `index`.
    fn second(&self, index: usize) -> Range<usize> {
        let _ = index;
        0..0
    }
    /// Something proportional to the time it takes.
    fn cost(&self) -> u64;
}

/// A part of a buffer: `content` starts `base` scalars into it.
#[derive(Debug)]
pub(crate) struct Part<'a, S> {
    pub(crate) base: usize,
    pub(crate) content: &'a mut [S],
}

impl<'a, S> Part<'a, S> {
    pub(crate) fn whole(content: &'a mut [S]) -> Self {
        Self { base: 0, content }
    }

    /// Before and from position `at` of the buffer.
    fn split(self, at: usize) -> (Self, Self) {
        let (low, high) = self.content.split_at_mut(at - self.base);
        (Self { base: self.base, content: low }, Self { base: at, content: high })
    }

    fn reborrow(&mut self) -> Part<'_, S> {
        Part { base: self.base, content: self.content }
    }
}

/// Threads to work with.
#[derive(Debug)]
pub(crate) struct Pool(Option<rayon::ThreadPool>);

impl Pool {
    /// # Panics
    /// If the threads cannot be started.
    pub(crate) fn new(threads: usize) -> Self {
        let pool = (threads > 1).then(|| {
            let name = |index| format!("kronfleet-faer-{index}");
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(name).build();
            pool.unwrap_or_else(|error| panic!("cannot start {threads} threads ({error}); ask for fewer"))
        });
        Self(pool)
    }

    pub(crate) fn threads(&self) -> usize {
        self.0.as_ref().map_or(1, rayon::ThreadPool::current_num_threads)
    }

    /// Runs `work` inside the pool, so that rayon's operations in it use its threads.
    pub(crate) fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match &self.0 {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }

    /// Calls `work(index, piece)` for every piece of `len` elements of `target`, of which the last may be shorter.
    ///
    /// Where pieces end must not depend on the number of threads if it is to be seen in the results.
    pub(crate) fn pieces<T: Send>(&self, len: usize, target: &mut [T], work: impl Fn(usize, &mut [T]) + Sync) {
        match &self.0 {
            Some(pool) if target.len() > len => {
                let all = |(index, piece): (usize, &mut [T])| work(index, piece);
                pool.install(|| target.par_chunks_mut(len).enumerate().for_each(all));
            }
            _ => {
                for (index, piece) in target.chunks_mut(len).enumerate() {
                    work(index, piece);
                }
            }
        }
    }

    /// Calls `work(job, first, second)` for every job with parts of the two buffers that hold its targets.
    pub(crate) fn each<J: Piece, S: Send, T: Send>(
        &self,
        jobs: &[J],
        first: &mut [S],
        second: &mut [T],
        work: impl Fn(usize, &J, Part<'_, S>, Part<'_, T>) + Sync,
    ) {
        let (mut first, mut second) = (Part::whole(first), Part::whole(second));
        if self.0.is_none() || jobs.len() < 2 || !apart(jobs, first.content.len()) {
            for (index, job) in jobs.iter().enumerate() {
                work(index, job, first.reborrow(), second.reborrow());
            }
            return;
        }
        self.install(|| split(0, jobs, first, second, &work));
    }
}

/// Whether both buffers can be cut between any two jobs. Blocks of one matrix may interleave.
fn apart<J: Piece>(jobs: &[J], len: usize) -> bool {
    let follows = |a: Range<usize>, b: Range<usize>| a.end <= b.start;
    jobs.windows(2).enumerate().all(|(index, pair)| {
        pair[1].target().start <= len
            && follows(pair[0].target(), pair[1].target())
            && follows(pair[0].second(index), pair[1].second(index + 1))
    })
}

/// Halves the jobs by cost until one is left.
fn split<J: Piece, S: Send, T: Send>(
    start: usize,
    jobs: &[J],
    first: Part<'_, S>,
    second: Part<'_, T>,
    work: &(impl Fn(usize, &J, Part<'_, S>, Part<'_, T>) + Sync),
) {
    if let [job] = jobs {
        return work(start, job, first, second);
    }
    let total: u64 = jobs.iter().map(Piece::cost).sum();
    let mut before = 0;
    let heavier = jobs.iter().position(|job| {
        before += job.cost();
        2 * before >= total
    });
    let middle = heavier.map_or(1, |index| index + 1).clamp(1, jobs.len() - 1);
    let (left, right) = jobs.split_at(middle);
    let (first_low, first_high) = first.split(right[0].target().start);
    let (second_low, second_high) = second.split(right[0].second(start + middle).start);
    rayon::join(
        || split(start, left, first_low, second_low, work),
        || split(start + middle, right, first_high, second_high, work),
    );
}
