//! nalgebra obeys every law, in both precisions.

use kronfleet_nalgebra::Nalgebra;

mod single {
    kronfleet_conformance::backend_laws!(make: || super::Nalgebra::<f32>::new());
}

mod double {
    kronfleet_conformance::backend_laws!(make: || super::Nalgebra::<f64>::new());
}
