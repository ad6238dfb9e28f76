//! The fast CPU backend of kronfleet, on faer.
