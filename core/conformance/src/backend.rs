//! The laws of [`Backend`].
//!
//! Every operation is compared with a naive oracle in double precision, written here from the documentation alone,
//! within bounds computed from sizes, ε and condition numbers. Laws come in order, from memory to whole layers: the
//! first one that does not hold is the place to look.
//!
//! Data lies inside poisoned buffers, so that reading or writing outside a region is seen; drawn cases have one or
//! several jobs, transposed and blocked operands, and extents of 0 to 33 and around the sizes of blocks.
//!
//! [`Mutant`] is wrong on purpose, in every way that [`Fault`] lists: the laws themselves are tested with it.

mod agreement;
mod bound;
mod case;
mod convolution;
mod data;
mod eigen;
mod elementwise;
mod factorisation;
mod fault;
mod loss;
mod memory;
mod mutant;
mod normalisation;
mod patch;
mod pooling;
mod product;
mod queue;
mod reduction;
mod shape;
mod shortcut;

pub use agreement::overrides_agree_with_the_defaults;
pub use convolution::{convolution_gradients_match_the_oracle, convolutions_match_the_oracle};
pub use eigen::{
    eigenpairs_multiply_back, eigenvalues_ascend, eigenvalues_of_nan_are_nan, eigenvectors_are_orthonormal,
};
pub use elementwise::{maps_match_the_oracle, vector_updates_match_the_oracle};
pub use factorisation::{
    cholesky_factors_multiply_back, failed_factorisations_are_reported_alone, inverses_invert, solutions_solve,
};
pub use fault::Fault;
pub use loss::{cross_entropy_matches_the_oracle, sampled_labels_match_the_oracle};
pub use memory::{host_work_reads_and_writes, tickets_are_snapshots, uploads_come_back, work_is_counted};
pub use mutant::{Memory, Mutant, Ticket};
pub use normalisation::{
    batch_norm_evaluation_matches_the_oracle, batch_norm_gradients_match_the_oracle, batch_norm_matches_the_oracle,
    evo_norm_gradients_match_the_oracle, evo_norm_matches_the_oracle,
};
pub use patch::{folding_matches_the_oracle, unfold_and_fold_are_adjoint, unfolding_matches_the_oracle};
pub use pooling::{pooling_gradients_match_the_oracle, pooling_matches_the_oracle};
pub use product::{
    product_jobs_are_independent, products_match_the_oracle, products_with_beta_zero_overwrite_nan,
    symmetric_products_are_symmetric, symmetric_products_match_the_oracle,
};
pub use queue::{calls_act_in_order, reruns_are_bit_identical, synchronising_changes_no_bit};
pub use reduction::reductions_match_the_oracle;
pub use shape::{empty_sums_are_zero, empty_work_does_nothing, wrong_shapes_panic};
pub use shortcut::shortcuts_match_the_oracle;

use crate::check::{Broken, Check};
use kronfleet_core::backend::Backend;

/// A law: tried on backends that `make` makes.
pub type Law<B> = fn(make: &dyn Fn() -> B, check: &Check) -> Result<(), Broken>;

/// Hands the names of all laws, in order, to a macro. The one list of them.
#[doc(hidden)]
#[macro_export]
macro_rules! each_backend_law {
    (($($callback:tt)*) $($arguments:tt)*) => {
        $($callback)* ! {
            $($arguments)*;
            uploads_come_back
            tickets_are_snapshots
            product_jobs_are_independent
            products_with_beta_zero_overwrite_nan
            products_match_the_oracle
            empty_sums_are_zero
            maps_match_the_oracle
            vector_updates_match_the_oracle
            calls_act_in_order
            reductions_match_the_oracle
            cholesky_factors_multiply_back
            failed_factorisations_are_reported_alone
            solutions_solve
            inverses_invert
            symmetric_products_are_symmetric
            symmetric_products_match_the_oracle
            eigenvalues_ascend
            eigenvectors_are_orthonormal
            eigenpairs_multiply_back
            eigenvalues_of_nan_are_nan
            unfolding_matches_the_oracle
            folding_matches_the_oracle
            unfold_and_fold_are_adjoint
            convolutions_match_the_oracle
            convolution_gradients_match_the_oracle
            pooling_matches_the_oracle
            pooling_gradients_match_the_oracle
            batch_norm_matches_the_oracle
            batch_norm_evaluation_matches_the_oracle
            batch_norm_gradients_match_the_oracle
            evo_norm_matches_the_oracle
            evo_norm_gradients_match_the_oracle
            cross_entropy_matches_the_oracle
            sampled_labels_match_the_oracle
            shortcuts_match_the_oracle
            host_work_reads_and_writes
            reruns_are_bit_identical
            synchronising_changes_no_bit
            empty_work_does_nothing
            wrong_shapes_panic
            work_is_counted
            overrides_agree_with_the_defaults
        }
    };
}

/// One test per law for one backend: `backend_laws!(make: || MyBackend::<f32>::new());`.
///
/// `PROPTEST_CASES` says how many cases each law is tried on (64 if unset), `PROPTEST_RNG_SEED` which.
#[macro_export]
macro_rules! backend_laws {
    (make: $make:expr) => {
        $crate::each_backend_law! { ($crate::backend_laws) @ $make }
    };
    (@ $make:expr; $($law:ident)*) => {
        $(
            #[test]
            fn $law() {
                let outcome = $crate::backend::$law(&$make, &$crate::check::Check::default());
                if let Err(broken) = outcome {
                    panic!("{} does not hold: {broken} {}", stringify!($law), stringify!($law));
                }
            }
        )*
    };
}

macro_rules! table {
    (; $($law:ident)*) => { vec![$((stringify!($law), $law::<B> as Law<B>)),*] };
}

/// All laws by name, in order.
pub fn laws<B: Backend>() -> Vec<(&'static str, Law<B>)> {
    crate::each_backend_law! { (table) }
}
