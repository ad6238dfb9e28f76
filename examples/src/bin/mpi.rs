//! Nodes as the processes of an MPI job.

use anyhow::Result;
use kronfleet_examples::run::mpi::{open, prepare};
use kronfleet_examples::run::processes::main_with;
use std::process::ExitCode;

fn main() -> Result<ExitCode> {
    main_with(
        "mpi",
        "Train a network among the processes of an MPI job, on the fabric that the site has tuned its MPI for.\n\n\
         Start it with mpirun or srun, one process per node; without, it starts mpirun with 4 processes itself. LeNet-5, \
         K-FAC, embedded Fashion-MNIST unless said otherwise. MPI lets nobody die alone: a killed process ends the job, \
         so that nothing is killed on the way. Each process writes a run folder of its own; the first shows its report.",
        prepare,
        open,
    )
}
