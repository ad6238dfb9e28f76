//! faer obeys every law, in both precisions, on one thread and on two.

use kronfleet_faer::Faer;

mod single {
    kronfleet_conformance::backend_laws!(make: || super::Faer::<f32>::new(1));
}

mod double {
    kronfleet_conformance::backend_laws!(make: || super::Faer::<f64>::new(1));
}

mod threads {
    kronfleet_conformance::backend_laws!(make: || super::Faer::<f32>::new(2));
}
