//! Why a checkpoint cannot be written or taken up.

use std::io;
use std::path::PathBuf;

/// Why a checkpoint cannot be written or taken up.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file system refused.
    #[error("cannot {what} {}: {reason}{}", path.display(), remedy(reason))]
    File {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system says.
        reason: io::Error,
    },
    /// What is to be taken up is not there, or is no folder.
    #[error("{} is no folder ({reason}); give --resume the folder that --checkpoint wrote into, or one of those in it", place.display())]
    NoFolder {
        /// What was given.
        place: PathBuf,
        /// What the system says.
        reason: io::Error,
    },
    /// There is nothing to take up.
    #[error("there is no checkpoint in {}; give the folder that --checkpoint wrote into, or one of those in it", folder.display())]
    Nothing {
        /// Where there is none.
        folder: PathBuf,
    },
    /// There is a checkpoint, and it must not be taken up.
    #[error("the checkpoint {} is refused: {reason}{}", checkpoint.display(), offer(previous.as_ref()))]
    Refused {
        /// Which.
        checkpoint: PathBuf,
        /// Why.
        reason: String,
        /// An older one of the same folder that is whole, and its iteration.
        previous: Option<(PathBuf, u64)>,
    },
    /// The folder holds checkpoints of another run.
    #[error(
        "{place} holds checkpoints already, up to {newest}; go on with them by --resume {place}, or give --checkpoint a \
         folder of its own",
        place = folder.display()
    )]
    Occupied {
        /// The folder.
        folder: PathBuf,
        /// The newest there.
        newest: String,
    },
}

/// What helps where it is known.
fn remedy(reason: &io::Error) -> &'static str {
    match reason.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; make room, or lower --keep",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => "; choose a folder that can be written",
        _ => "",
    }
}

fn offer(previous: Option<&(PathBuf, u64)>) -> String {
    match previous {
        Some((path, iteration)) => {
            format!("\nthe one before it is whole: take up iteration {iteration} with --resume {}", path.display())
        }
        None => String::new(),
    }
}
