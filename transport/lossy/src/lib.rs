//! In-process lossy links for kronfleet: a deterministic virtual-time simulator and real threads.
