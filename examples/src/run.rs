//! What all trainers share, whatever carries their frames: watching nodes train, and telling the user.

mod audit;
mod backends;
mod clock;
mod compute;
mod conclusion;
mod display;
mod evaluation;
pub mod events;
mod judge;
mod keeper;
mod lossy;
#[cfg(feature = "mpi")]
pub mod mpi;
mod order;
pub mod processes;
mod resume;
mod retrace;
mod stop;
mod story;
mod survivor;
pub mod tcp;
mod threads;
mod timeouts;
mod watch;
mod witness;
mod workbench;
mod workshop;
mod zeros;

pub use backends::Backends;
pub use compute::Compute;
pub use conclusion::{conclude, prepare};
pub use display::Display;
pub use evaluation::{Agenda, Evaluator, EvaluatorState, Judge, Model, Point};
pub use judge::NetworkJudge;
pub use keeper::Keeper;
pub use lossy::{Ending, Fleet, Keeping};
pub use order::{Again, Order};
pub use resume::exercise_checkpoint;
pub use retrace::{Recorded, Repetition};
pub use stop::stop_on_signal;
pub use story::{Death, DeviceLoss, Kept, Metric, NodeStory, Story, Traffic};
pub use survivor::{Loss, Spare, SurvivingJudge, Survivor};
pub use threads::set_threads;
pub use watch::{Trained, Watch, WatchState, blank};
pub use witness::Witness;
pub use workbench::Workbench;
pub use workshop::Workshop;

#[cfg(test)]
mod tests;
