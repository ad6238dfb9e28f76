//! A store on a disk that fails at every place, and checkpoints that were tampered with.

mod model;

use super::*;
use model::{Crash, Failure, Model};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const FOLDER: &str = "kept/here";

fn identity() -> RunIdentity {
    let settings = "learning-rate = 0.05\nnodes = 8\n".to_owned();
    RunIdentity {
        settings_sha256: Sum::of(settings.as_bytes()),
        settings,
        model: "lenet5".into(),
        model_sha256: Sum::of(b"model"),
        data: "embedded".into(),
        data_sha256: Sum::of(b"data"),
        nodes: 8,
        scalar: "f32".into(),
    }
}

/// What checkpoint `number` consists of.
fn parts(number: u64) -> Vec<Part> {
    let text = |what: &str| format!("{what} of {number}").into_bytes();
    vec![("model".into(), text("model")), ("layers/a".into(), text("a")), ("layers/b".into(), text("b"))]
}

fn write<D: Storage>(store: &mut Store<D>, number: u64) -> Result<(PathBuf, u64), CheckpointError> {
    let manifest = Manifest::new(identity(), 10 * number, 0, String::new());
    store.write(manifest, parts(number).into_iter().map(Ok::<_, CheckpointError>))
}

fn open(disk: &Model) -> Store<Model> {
    Store::open(disk.clone(), Path::new(FOLDER), 2, true).expect("the disk is sound")
}

/// The newest checkpoint, which has to be whole and to hold what was written as it.
fn newest(disk: &Model) -> u64 {
    let saved = Saved::find(disk, Path::new(FOLDER), Some(&identity())).expect("there always is a whole one");
    let number = saved.manifest.number;
    for (file, content) in parts(number) {
        assert_eq!(saved.read(disk, &file).expect("checked a moment ago"), content);
    }
    number
}

/// A disk on which the checkpoints 1 and 2 are, for certain.
fn sound() -> Model {
    let disk = Model::default();
    let mut store = open(&disk);
    for number in 1..=2 {
        write(&mut store, number).expect("the disk is sound");
    }
    disk
}

/// How much there is to be spent in writing checkpoint 3.
fn cost() -> u64 {
    let disk = sound();
    let mut store = open(&disk);
    let before = disk.spent();
    write(&mut store, 3).expect("the disk is sound");
    disk.spent() - before
}

#[test]
fn a_crash_anywhere_leaves_the_newest_whole_checkpoint() {
    let cost = cost();
    assert!(cost > 1000, "every byte and every name is a place to crash at: {cost}");
    for budget in 0..=cost {
        let disk = sound();
        let mut store = open(&disk);
        disk.fail_after(budget, Failure::Dead);
        let written = write(&mut store, 3).is_ok();
        assert_eq!(written, budget == cost, "{budget} of {cost}");
        for crash in [Crash::Kill, Crash::PowerLoss, Crash::NamesOnly] {
            let after = disk.crash(crash);
            let found = newest(&after);
            assert!(found == 3 || (found == 2 && !written), "{crash:?} after {budget} of {cost}: {found}");
            // Whoever goes on is not in the way of what was left.
            let mut store = open(&after);
            write(&mut store, found + 1).expect("the disk is sound again");
            assert_eq!(newest(&after.crash(Crash::PowerLoss)), found + 1);
            assert!(after.names(FOLDER).iter().all(|name| !name.starts_with('.')), "nothing is left over");
        }
    }
}

#[test]
fn a_full_disk_loses_nothing_and_is_taken_when_there_is_room_again() {
    let cost = cost();
    let mut failures = 0;
    for budget in 0..cost {
        let disk = sound();
        let mut store = open(&disk);
        disk.fail_after(budget, Failure::Full);
        match write(&mut store, 3) {
            Ok(_) => assert_eq!(newest(&disk), 3),
            Err(error) => {
                assert!(error.to_string().contains("make room"), "{error}");
                failures += 1;
            }
        }
        let found = newest(&disk);
        disk.fail_after(u64::MAX, Failure::Full);
        // After the renaming only the tidying can have failed.
        write(&mut store, found + 1).expect("there is room again");
        assert_eq!(newest(&disk), found + 1);
        assert_eq!(disk.names(FOLDER), [format!("{found:08}"), format!("{:08}", found + 1)]);
    }
    // Tidying up at the end adds nothing, so that it goes on.
    assert!(failures > cost - 20, "{failures} of {cost}");
}

#[test]
fn a_folder_that_cannot_be_written_is_found_out_before_the_run() {
    let disk = sound();
    disk.fail_after(0, Failure::ReadOnly);
    let error = Store::open(disk, Path::new(FOLDER), 2, true).err().expect("nothing can be written").to_string();
    assert!(error.contains("write into kept/here") && error.contains("choose a folder that can be written"), "{error}");
}

#[test]
fn the_newest_few_are_kept() {
    let disk = Model::default();
    let mut store = open(&disk);
    for number in 1..=5 {
        write(&mut store, number).expect("the disk is sound");
    }
    assert_eq!(disk.names(FOLDER), ["00000004", "00000005"]);
    let occupied = Store::open(disk, Path::new(FOLDER), 2, false).err().expect("it is another run").to_string();
    assert!(occupied.contains("up to 00000005") && occupied.contains("--resume kept/here"), "{occupied}");
}

#[test]
fn every_damaged_byte_and_every_truncation_is_refused_and_the_one_before_offered() {
    let sound = sound();
    let checkpoint = Path::new(FOLDER).join("00000002");
    let files = [MANIFEST, VOUCHER, "model", "layers/a", "layers/b"];
    let refused = |disk: &Model, place: &str| {
        let error = Saved::find(disk, Path::new(place), Some(&identity())).expect_err("it is damaged");
        let CheckpointError::Refused { checkpoint, previous, reason } = &error else { panic!("{error}") };
        assert_eq!(checkpoint, &Path::new(FOLDER).join("00000002"));
        assert_eq!(previous, &Some((Path::new(FOLDER).join("00000001"), 10)), "{reason}");
        assert!(error.to_string().contains("take up iteration 10 with --resume kept/here/00000001"), "{error}");
        reason.clone()
    };
    for file in files {
        let path = checkpoint.join(file);
        let content = sound.read(&path, u64::MAX).expect("a file");
        for at in 0..content.len() {
            let disk = sound.copy();
            let mut flipped = content.clone();
            flipped[at] ^= 1 << (at % 8);
            disk.replace(&path, flipped);
            refused(&disk, FOLDER);
            let disk = sound.copy();
            disk.replace(&path, content[..at].to_vec());
            refused(&disk, FOLDER);
        }
        let disk = sound.copy();
        disk.replace(&path, [&content[..], b"\n"].concat());
        refused(&disk, FOLDER);
        let disk = sound.copy();
        disk.forget(&path);
        let reason = refused(&disk, "kept/here/00000002");
        assert!(reason.contains(file) && reason.contains("cannot be read"), "{reason}");
    }
}

#[test]
fn a_foreign_checkpoint_is_refused_with_what_differs() {
    let disk = sound();
    let says = |run: RunIdentity, part: &str| {
        let error = Saved::find(&disk, Path::new(FOLDER), Some(&run)).expect_err("it is foreign").to_string();
        assert!(error.contains("it is of another run") && error.contains(part), "{error}");
        assert!(!error.contains("the one before"), "that is as foreign: {error}");
    };
    let with = |settings: &str| RunIdentity { settings: settings.into(), ..identity() };
    says(with("learning-rate = 0.06\nnodes = 8\n"), "--learning-rate is 0.05 there and 0.06 here");
    says(with("learning-rate = 0.05\nnodes = 8\nloss = 0.1\n"), "--loss is not set there and 0.1 here");
    says(RunIdentity { model_sha256: Sum::of(b"other"), ..identity() }, "its model, lenet5,");
    says(RunIdentity { data_sha256: Sum::of(b"other"), ..identity() }, "its training data, embedded,");
    says(RunIdentity { scalar: "f64".into(), ..identity() }, "numbers of type f32");
    let fewer = RunIdentity { nodes: 5, ..with("learning-rate = 0.05\nnodes = 5\n") };
    assert!(Saved::find(&disk, Path::new(FOLDER), Some(&fewer)).is_ok(), "another number of nodes is no other run");
}

#[test]
fn another_version_of_the_format_is_named() {
    let manifest = Manifest { version: VERSION + 1, ..Manifest::new(identity(), 1, 2, "3".into()) };
    let (bytes, voucher) = manifest.encode();
    let error = Manifest::decode(&bytes, &voucher).expect_err("it is of the future").to_string();
    let words = format!("version {}, this program reads \"kronfleet-checkpoint\" version {VERSION}", VERSION + 1);
    assert!(error.contains(&words), "{error}");
    let outside = BTreeMap::from([("../x".to_owned(), Entry { bytes: 0, sha256: Sum::of(b"") })]);
    let (bytes, voucher) = Manifest { files: outside, ..Manifest::new(identity(), 1, 2, "3".into()) }.encode();
    let error = Manifest::decode(&bytes, &voucher).expect_err("it leaves its folder").to_string();
    assert!(error.contains("is no path inside the checkpoint"), "{error}");
}

#[test]
fn an_empty_folder_has_nothing_to_offer() {
    let mut disk = Model::default();
    disk.create(Path::new(FOLDER)).expect("room");
    let error = Saved::find(&disk, Path::new(FOLDER), None).expect_err("there is none").to_string();
    assert!(error.contains("there is no checkpoint in kept/here"), "{error}");
}

#[test]
fn what_is_no_folder_is_named_with_what_to_give_instead() {
    let disk = sound();
    for place in ["kept/here/00000002/model", "kept/nowhere"] {
        let error = Saved::find(&disk, Path::new(place), None).expect_err("it is no folder").to_string();
        assert!(error.starts_with(&format!("{place} is no folder (")), "{error}");
        assert!(
            error.ends_with("give --resume the folder that --checkpoint wrote into, or one of those in it"),
            "{error}"
        );
    }
}

proptest! {
    #[test]
    fn a_manifest_is_read_back_and_arbitrary_bytes_are_none(
        iteration in any::<u64>(),
        trace in ".*",
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let manifest = Manifest::new(identity(), iteration, 7, trace);
        let (text, voucher) = manifest.encode();
        prop_assert_eq!(Manifest::decode(&text, &voucher), Ok(manifest));
        prop_assert!(Manifest::decode(&bytes, &voucher).is_err());
        prop_assert!(Manifest::decode(&text, &bytes).is_err());
        let vouched = format!("{}  {MANIFEST}\n", Sum::of(&bytes));
        prop_assert!(Manifest::decode(&bytes, vouched.as_bytes()).is_err());
    }
}

#[test]
fn the_disk_of_this_machine_does_what_the_model_does() {
    let folder = std::env::temp_dir().join(format!("kronfleet-checkpoint-store-{}", std::process::id()));
    let mut store = Store::open(Disk, &folder.join("a/b"), 1, false).expect("a writable temporary folder");
    for number in 1..=2 {
        let (path, bytes) = write(&mut store, number).expect("a writable temporary folder");
        assert_eq!(path, store.folder().join(format!("{number:08}")));
        assert!(bytes > 500);
    }
    let saved = Saved::find(&Disk, &folder.join("a/b"), Some(&identity())).expect("a whole checkpoint");
    assert_eq!(saved.manifest.number, 2);
    assert_eq!(saved.read(&Disk, "layers/a").expect("a file"), b"a of 2");
    assert!(!store.folder().join("00000001").exists(), "one is kept");
    std::fs::write(saved.path.join("layers/a"), "a of 3").expect("a writable file");
    let error = Saved::find(&Disk, &saved.path, None).expect_err("it was changed").to_string();
    assert!(error.contains("layers/a is damaged"), "{error}");
    std::fs::remove_dir_all(&folder).expect("the folder is ours");
}
