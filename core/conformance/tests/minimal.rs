//! The backend of required methods obeys every law, in both precisions.

use kronfleet_conformance::minimal::Minimal;

mod single {
    kronfleet_conformance::backend_laws!(make: || super::Minimal::<f32>::new());
}

mod double {
    kronfleet_conformance::backend_laws!(make: || super::Minimal::<f64>::new());
}
