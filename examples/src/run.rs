//! What all trainers share, whatever carries their frames: watching nodes train, and telling the user.

mod display;
mod evaluation;
mod judge;
mod lossy;
mod stop;
mod story;
mod threads;
mod watch;
mod witness;
mod workshop;
mod zeros;

pub use display::Display;
pub use evaluation::{Agenda, Evaluator, Judge, Model, Point};
pub use judge::NetworkJudge;
pub use lossy::{Ending, Fleet};
pub use stop::stop_on_signal;
pub use story::{Metric, NodeStory, Story};
pub use threads::set_threads;
pub use watch::{Trained, Watch, blank};
pub use witness::Witness;
pub use workshop::Workshop;
