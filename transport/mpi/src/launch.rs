//! Which process of an MPI job this is, as its launcher says, before MPI is entered.

/// The variables of rank and size, by launcher: Open MPI's `mpirun`, MPICH's, Intel's and others' `mpiexec`, and `srun`
/// with PMIx or PMI.
const VARIABLES: [(&str, &str); 3] =
    [("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"), ("PMI_RANK", "PMI_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS")];

/// A process's place in an MPI job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    /// Which process it is, from 0.
    pub rank: u32,
    /// How many there are.
    pub ranks: u32,
}

/// Why the environment makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} is {value:?}, which is no number below 2^31 beside {beside}: start this program with mpirun or srun")]
pub struct SeatError {
    /// The variable.
    pub name: &'static str,
    /// Its value; empty if there is none.
    pub value: String,
    /// The variable that goes with it.
    pub beside: &'static str,
}

impl Seat {
    /// This process's seat; `None` if no launcher of MPI jobs has started it.
    ///
    /// It does not enter MPI, so that the process can still start another that does in its place.
    ///
    /// # Errors
    /// If a launcher's variables make no sense.
    pub fn from_environment() -> Result<Option<Self>, SeatError> {
        Self::detect(|name| std::env::var(name).ok())
    }

    /// The same, from what `variable` says.
    ///
    /// # Errors
    /// If a launcher's variables make no sense.
    pub fn detect(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, SeatError> {
        let Some((rank, ranks)) = VARIABLES.into_iter().find(|(rank, _)| variable(rank).is_some()) else {
            return Ok(None);
        };
        let number = |name, beside, least, most| {
            let value = variable(name).unwrap_or_default();
            let number = value.trim().parse().ok().filter(|number| (least..most).contains(number));
            number.ok_or(SeatError { name, value, beside })
        };
        let size = number(ranks, rank, 1, 1 << 31)?;
        Ok(Some(Self { rank: number(rank, ranks, 0, size)?, ranks: size }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detect(variables: &[(&str, &str)]) -> Result<Option<Seat>, SeatError> {
        Seat::detect(|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).into()))
    }

    #[test]
    fn launchers_say_who_is_who() {
        assert_eq!(detect(&[]), Ok(None));
        for (rank, ranks) in VARIABLES {
            assert_eq!(detect(&[(rank, "2"), (ranks, "3")]), Ok(Some(Seat { rank: 2, ranks: 3 })));
            for (bad_rank, bad_size) in [("3", "3"), ("-1", "3"), ("x", "3"), ("0", "0"), ("0", "")] {
                assert!(detect(&[(rank, bad_rank), (ranks, bad_size)]).is_err(), "{rank}={bad_rank} of {bad_size}");
            }
        }
    }
}
