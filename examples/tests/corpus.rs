//! The fuzz targets' corpora under plain `cargo test`: what fuzzing has found stays found.

use kronfleet_core::cluster::{exercise, exercise_membership, wire};
use kronfleet_examples::data::{cifar, idx};
use kronfleet_examples::model::description;
use kronfleet_examples::run::events::exercise_event_log;
use kronfleet_examples::run::exercise_checkpoint;
use std::fs;
use std::path::Path;

/// Calls `target` with every file of a corpus; there is at least one.
fn replay(corpus: &str, target: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(corpus);
    let mut files = 0;
    for entry in fs::read_dir(&folder).expect("every target has a corpus") {
        let path = entry.expect("a readable folder").path();
        target(&fs::read(&path).expect("a readable file"));
        files += 1;
    }
    assert!(files > 0, "{} is empty", folder.display());
}

#[test]
fn readers() {
    replay("idx", |bytes| idx::check(bytes).expect("seeds are sound files"));
    replay("cifar", |bytes| assert_eq!(cifar::parse(bytes).expect("seeds are sound files").len(), 2));
    replay("model", |bytes| drop(description::check(bytes)));
    replay("checkpoint", exercise_checkpoint);
    replay("event_log", exercise_event_log);
}

#[test]
fn protocol() {
    replay("wire", |bytes| assert!(wire::decode(bytes).is_ok(), "seeds are sound frames"));
    replay("membership", exercise_membership);
    replay("round", exercise);
}
