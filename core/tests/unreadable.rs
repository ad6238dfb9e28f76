//! Training whose device cannot be read.

use core::ops::Range;
use kronfleet_core::backend::{Backend, Counters, Extent, Gemm, Map, MapJob, ReduceJob, Solve};
use kronfleet_core::cluster::Contribution;
use kronfleet_core::matrix::Region;
use kronfleet_core::network::{Initialisation, Network, Spec};
use kronfleet_core::optimiser::{Sgd, SgdOptions};
use kronfleet_core::participant::Training;
use kronfleet_core::policy::Request;
use kronfleet_core::preconditioner::Identity;
use kronfleet_core::seed::Seed;
use kronfleet_core::trainer::{Batches, Trainer, TrainerOptions};
use kronfleet_nalgebra::{Nalgebra, OutOfMemory, Snapshot, Soundness};

type Host = Nalgebra<f64>;
type Done = Result<(), OutOfMemory>;

/// Computes, but gives nothing away while it is broken.
#[derive(Default)]
struct Device {
    host: Host,
    broken: bool,
}

impl Backend for Device {
    type Scalar = f64;
    type Buffer = Vec<f64>;
    type Download = Snapshot<f64>;
    type Verdict = Soundness;
    type Error = OutOfMemory;

    fn allocate(&mut self, len: usize) -> Result<Vec<f64>, OutOfMemory> {
        self.host.allocate(len)
    }

    fn upload(&mut self, source: &[f64], target: &mut Vec<f64>, offset: usize) -> Done {
        self.host.upload(source, target, offset)
    }

    fn download(&mut self, source: &Vec<f64>, range: Range<usize>) -> Result<Snapshot<f64>, OutOfMemory> {
        if self.broken { Err(OutOfMemory { bytes: 1 }) } else { self.host.download(source, range) }
    }

    fn finish(&mut self, ticket: Snapshot<f64>, target: &mut [f64]) -> Done {
        self.host.finish(ticket, target)
    }

    fn gemm(&mut self, jobs: &[Gemm<f64>], a: &Vec<f64>, b: &Vec<f64>, c: &mut Vec<f64>) -> Done {
        self.host.gemm(jobs, a, b, c)
    }

    fn map(
        &mut self,
        op: Map<f64>,
        jobs: &[MapJob],
        x: Option<&Vec<f64>>,
        y: Option<&Vec<f64>>,
        out: &mut Vec<f64>,
    ) -> Done {
        self.host.map(op, jobs, x, y, out)
    }

    fn reduce(&mut self, jobs: &[ReduceJob<f64>], x: &Vec<f64>, y: Option<&Vec<f64>>, out: &mut Vec<f64>) -> Done {
        self.host.reduce(jobs, x, y, out)
    }

    fn cholesky(&mut self, jobs: &[Region], matrices: &mut Vec<f64>) -> Result<Soundness, OutOfMemory> {
        self.host.cholesky(jobs, matrices)
    }

    fn cholesky_solve(&mut self, jobs: &[Solve], factors: &Vec<f64>, x: &mut Vec<f64>) -> Done {
        self.host.cholesky_solve(jobs, factors, x)
    }

    fn verdict(&mut self, ticket: Soundness, sound: &mut [bool]) -> Done {
        self.host.verdict(ticket, sound)
    }

    fn sync(&mut self) -> Done {
        self.host.sync()
    }

    fn counters(&mut self) -> &mut Counters {
        self.host.counters()
    }
}

struct Ones;

impl Batches<f64> for Ones {
    fn fill(&mut self, x: &mut [f64], labels: &mut [u32]) {
        x.fill(1.0);
        labels.fill(0);
    }

    fn position(&self) -> u64 {
        0
    }

    fn restore(&mut self, _: u64) {}
}

fn trainer() -> Trainer<Device> {
    let mut backend = Device::default();
    let mut network = Network::build(&mut backend, Extent::flat(3), &[Spec::dense("all", 2)], 4).expect("it fits");
    network.initialise(&mut backend, Seed(2), Initialisation::Uniform).expect("memory");
    let optimiser = Sgd::new(&mut backend, network.parameters_len(), &[], SgdOptions::default()).expect("memory");
    let (preconditioner, options) = (Box::new(Identity::default()), TrainerOptions::new(4, 0.1));
    Trainer::new(backend, network, preconditioner, Box::new(optimiser), Box::new(Ones), options).expect("memory")
}

#[test]
fn what_cannot_be_read_counts_nothing_and_the_next_step_says_so() {
    type Look = fn(&mut Trainer<Device>, &mut Contribution<f64>);
    let looks: [Look; 2] = [Training::show, |trainer, seen| Training::contribute(trainer, &Request::default(), seen)];
    for look in looks {
        let mut trainer = trainer();
        let mut seen = Contribution::default();
        look(&mut trainer, &mut seen);
        assert_eq!(seen.segments()[0].weight, 1.0);
        assert!(seen.segments()[0].values.iter().any(|&value| value != 0.0));
        trainer.parts().0.broken = true;
        seen.clear();
        look(&mut trainer, &mut seen);
        let first = &seen.segments()[0];
        assert_eq!((first.name.as_str(), first.weight), ("parameters", 0.0));
        assert!(first.values.iter().all(|&value| value == 0.0), "what stood there before is no model either");
        trainer.parts().0.broken = false;
        let error = Training::step(&mut trainer).expect_err("it could not be read");
        assert!(error.reason.contains("while averaging"), "{error}");
    }
}
