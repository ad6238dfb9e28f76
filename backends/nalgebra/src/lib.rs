//! The small portable no_std CPU backend of kronfleet, on nalgebra.
