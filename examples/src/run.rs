//! What all trainers share, whatever carries their frames: watching nodes train, and telling the user.

mod display;
mod evaluation;
mod judge;
mod stop;
mod story;

pub use display::Display;
pub use evaluation::{Evaluator, Judge, Point};
pub use judge::NetworkJudge;
pub use stop::stop_on_signal;
pub use story::{Metric, NodeStory, Story};
