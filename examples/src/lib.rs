//! The kronfleet trainers: models, data, command lines, plots and reports.

pub mod checkpoint;
pub mod data;
pub mod golden;
pub mod model;
pub mod report;
pub mod run;
pub mod settings;
pub mod speed;
pub mod study;
pub mod sweep;
pub mod trial;
