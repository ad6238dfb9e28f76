//! Images and labels: where they come from, who holds which, and how a batch reaches the network.
//!
//! [`Source`](source::Source) names a data set and loads it; the embedded one needs no download.
//! [`Partition`](partition::Partition) deals its samples out among nodes, [`Sampler`](sampler::Sampler) draws
//! mini-batches from a node's share, and [`Feed`](feed::Feed) writes a batch into the caller's memory,
//! normalised and in the layout the layers read.
//!
//! ```
//! use kronfleet_core::seed::Seed;
//! use kronfleet_examples::data::{feed::Feed, partition::Partition, sampler::Sampler, source::Source};
//!
//! let data = Source::Embedded.load()?;
//! let shares = Partition::Iid.split(data.train.labels(), 8, Seed(1))?;
//! let mut sampler = Sampler::new(&shares[0], Seed(1).derive("sampler", 0));
//! let feed = Feed::<f32>::new(&data.train, &data.normalisation, None);
//!
//! let mut samples = [0; 64];
//! let mut labels = [0; 64];
//! let mut pixels = vec![0.0; 64 * data.train.shape().len()];
//! let draw = sampler.draw(&mut samples);
//! feed.fill(&data.train, &samples, draw, &mut pixels, &mut labels);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod augmentation;
pub mod cifar;
pub mod embedded;
pub mod error;
pub mod feed;
pub mod idx;
pub mod normalisation;
pub mod partition;
pub mod sampler;
pub mod set;
pub mod source;
