//! The kronfleet trainers: models, data, command lines, plots and reports.

pub mod data;
pub mod report;
pub mod run;
pub mod settings;
