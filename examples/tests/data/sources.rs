//! Data sets are found by the names of their files; what is missing or does not fit is said.

use crate::{cifar_file, gzip};
use kronfleet_core::seed::Seed;
use kronfleet_examples::data::error::DataError;
use kronfleet_examples::data::idx;
use kronfleet_examples::data::set::{DataSet, Shape};
use kronfleet_examples::data::source::{Data, FASHION_MNIST_DIRECTORIES, Source};
use std::fs;
use std::path::{Path, PathBuf};

/// An empty directory of this test alone.
fn directory(name: &str, files: &[(&str, Vec<u8>)]) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("data").join(name);
    if directory.exists() {
        fs::remove_dir_all(&directory).expect("an earlier run's directory can be removed");
    }
    fs::create_dir_all(&directory).expect("the target directory can be written");
    for (name, bytes) in files {
        fs::write(directory.join(name), bytes).expect("the target directory can be written");
    }
    directory
}

fn load(directory: &Path) -> Result<Data, DataError> {
    Source::Directory(directory.into()).load()
}

#[track_caller]
fn refusal(directory: &Path, facts: &[&str]) -> DataError {
    let error = load(directory).expect_err("the directory is wrong");
    let message = error.to_string();
    for fact in facts {
        assert!(message.contains(fact), "{fact:?} is missing in {message:?}");
    }
    error
}

fn idx_files() -> [(&'static str, Vec<u8>); 4] {
    [
        ("train-images-idx3-ubyte", idx::write(&[3, 1, 2], &[0, 255, 10, 20, 30, 40])),
        ("train-labels-idx1-ubyte.gz", gzip(&idx::write(&[3], &[2, 0, 1]))),
        ("t10k-images.idx3-ubyte.gz", gzip(&idx::write(&[1, 1, 2], &[5, 6]))),
        ("t10k-labels.idx1-ubyte", idx::write(&[1], &[3])),
    ]
}

#[test]
fn the_embedded_set_is_balanced() {
    let data = Source::default().load().unwrap();
    for (set, per_class) in [(&data.train, 1_000), (&data.test, 200)] {
        assert_eq!(set.shape(), Shape { channels: 1, height: 28, width: 28 });
        assert_eq!((set.classes(), set.len()), (10, 10 * per_class));
        for class in 0..10 {
            assert_eq!(set.labels().iter().filter(|&&label| label == class).count(), per_class, "class {class}");
        }
    }
    // The full set's own are .2860 and .3530; a stratified sixth of it cannot be far.
    assert!((data.normalisation.mean[0] - 0.2860).abs() < 0.005, "{:?}", data.normalisation);
    assert!((data.normalisation.deviation[0] - 0.3530).abs() < 0.005, "{:?}", data.normalisation);
}

#[test]
fn the_embedded_set_is_the_stratified_part_of_the_full_one() {
    use kronfleet_examples::data::embedded::{SEED, TEST_PER_CLASS, TRAIN_PER_CLASS};
    use kronfleet_examples::data::source::FASHION_MNIST_DIRECTORIES;
    if !FASHION_MNIST_DIRECTORIES.iter().any(|directory| Path::new(directory).is_dir()) {
        println!("skipped: the package dataset-fashion-mnist is not installed");
        return;
    }
    let (full, embedded) = (Source::FashionMnist.load().unwrap(), Source::Embedded.load().unwrap());
    assert_eq!((full.train.len(), full.test.len()), (60_000, 10_000));
    assert_eq!(full.train.select(&full.train.stratified(TRAIN_PER_CLASS, SEED)), embedded.train);
    assert_eq!(full.test.select(&full.test.stratified(TEST_PER_CLASS, SEED)), embedded.test);
}

#[test]
fn the_embedded_files_are_a_directory_too() {
    let found = load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("data")).unwrap();
    let embedded = Source::Embedded.load().unwrap();
    assert_eq!((found.train, found.test), (embedded.train, embedded.test));
}

#[test]
fn idx_files_are_found_by_every_spelling() {
    let data = load(&directory("spellings", &idx_files())).unwrap();
    assert_eq!(data.name, "spellings");
    assert_eq!(data.train.image(1), [10, 20]);
    assert_eq!((data.train.labels(), data.test.labels()), (&[2, 0, 1][..], &[3][..]));
    // The test set knows a class that the training set does not.
    assert_eq!((data.train.classes(), data.test.classes()), (4, 4));
}

#[test]
fn a_stray_label_is_no_new_class() {
    let mut labels: Vec<u8> = (0..10).cycle().take(1_000).collect();
    labels[17] = 200;
    let mut files = idx_files();
    files[0].1 = idx::write(&[1_000, 1, 1], &[7; 1_000]);
    files[1].1 = gzip(&idx::write(&[1_000], &labels));
    refusal(&directory("stray", &files), &["train-labels-idx1-ubyte.gz", "byte 25", "label 200", "11 different"]);
}

#[test]
fn cifar_files_are_found() {
    let labels = |labels: &[u8]| cifar_file(labels);
    let all = (1..=5).map(|n| (format!("data_batch_{n}.bin"), labels(&[n, 0])));
    let mut files: Vec<_> = all.collect();
    files.push(("test_batch.bin".into(), labels(&[7])));
    let files: Vec<_> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
    let data = load(&directory("cifar", &files)).unwrap();
    assert_eq!((data.name.as_str(), data.train.shape()), ("CIFAR-10", Shape { channels: 3, height: 32, width: 32 }));
    assert_eq!((data.train.labels(), data.test.labels()), (&[1, 0, 2, 0, 3, 0, 4, 0, 5, 0][..], &[7][..]));
    assert_eq!(data.normalisation.mean.len(), 3);

    let parent = directory("cifar-parent", &[]);
    fs::create_dir(parent.join("cifar-10-batches-bin")).unwrap();
    for name in ["data_batch_1.bin", "test_batch.bin"] {
        fs::write(parent.join("cifar-10-batches-bin").join(name), labels(&[4])).unwrap();
    }
    assert_eq!(load(&parent).unwrap().name, "CIFAR-10, 1 of 5 batches");
}

#[test]
fn the_folder_of_a_package_leads_to_its_data() {
    let files = idx_files();
    let files: Vec<(String, Vec<u8>)> = files.map(|(name, bytes)| (format!("data/{name}"), bytes)).into();
    let package = directory("package", &[]);
    fs::create_dir(package.join("data")).expect("the target directory can be written");
    for (name, bytes) in &files {
        fs::write(package.join(name), bytes).expect("the target directory can be written");
    }
    let data = load(&package).unwrap();
    assert_eq!((data.name.as_str(), data.train.len(), data.test.len()), ("package", 3, 1));
    fs::remove_file(package.join("data/train-labels-idx1-ubyte.gz")).expect("just written");
    refusal(&package, &["the file of train labels is missing", &package.join("data").display().to_string()]);
}

#[test]
fn an_empty_or_absent_directory_says_what_was_looked_for() {
    let looked_for = [
        "train-images-idx3-ubyte, ",
        "train-images-idx3-ubyte.gz",
        "train-images.idx3-ubyte",
        "t10k-labels-idx1-ubyte",
        "data/",
        "data_batch_1.bin",
        "test_batch.bin",
    ];
    let empty = directory("empty", &[]);
    refusal(&empty, &looked_for);
    refusal(&empty, &["no data set in this directory", &empty.display().to_string()]);
    refusal(&empty.join("absent"), &["no such directory"]);
}

#[test]
fn a_missing_file_is_named() {
    let mut files = idx_files().to_vec();
    files.remove(1);
    let error = refusal(
        &directory("missing-labels", &files),
        &["the file of train labels is missing", "train-labels-idx1-ubyte.gz", "all four files"],
    );
    assert!(matches!(error, DataError::Missing { looked_for, .. } if looked_for.len() == 4));

    let batch = cifar_file(&[1]);
    let gap =
        [("data_batch_1.bin", batch.clone()), ("data_batch_3.bin", batch.clone()), ("test_batch.bin", batch.clone())];
    refusal(&directory("cifar-gap", &gap), &["data_batch_2.bin is missing"]);
    refusal(&directory("cifar-no-test", &gap[..1]), &["test_batch.bin is missing"]);
    refusal(&directory("cifar-no-train", &gap[2..]), &["data_batch_1.bin is missing"]);
}

#[test]
fn a_wrong_file_is_named_by_its_path() {
    let mut files = idx_files().to_vec();
    files[0].1.pop();
    let idx = directory("truncated", &files);
    let path = idx.join("train-images-idx3-ubyte");
    let error = refusal(&idx, &[&path.display().to_string(), "truncated at byte 21", "expected 22 bytes", "found 21"]);
    assert!(matches!(error, DataError::Format { path: named, .. } if named == path));

    let cifar = directory("cifar-wrong", &[("data_batch_1.bin", cifar_file(&[77])), ("test_batch.bin", vec![])]);
    refusal(&cifar, &["data_batch_1.bin: wrong value at byte 0", "found 77"]);
}

#[test]
fn files_that_do_not_belong_together_are_named() {
    let mut files = idx_files().to_vec();
    files[1].1 = gzip(&idx::write(&[2], &[0, 1]));
    refusal(&directory("counts", &files), &["holds 3 images, but ", "holds 2 labels", "train-labels-idx1-ubyte.gz"]);

    let mut files = idx_files().to_vec();
    files[2].1 = gzip(&idx::write(&[1, 2, 1], &[5, 6]));
    refusal(&directory("shapes", &files), &["training images are 1 × 1 × 2", "test images 1 × 2 × 1"]);

    let mut files = idx_files().to_vec();
    files[2].1 = gzip(&idx::write(&[0, 28, 28], &[]));
    files[3].1 = idx::write(&[0], &[]);
    refusal(&directory("none", &files), &["t10k-images.idx3-ubyte.gz", "at least one image", "0 images of 28 × 28"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_that_cannot_be_read_is_named() {
    // A regular file whose first byte nobody may read, not even the superuser.
    let memory = directory("memory", &idx_files()[..3]);
    let path = memory.join("t10k-labels-idx1-ubyte");
    std::os::unix::fs::symlink("/proc/self/mem", &path).unwrap();
    let error = refusal(&memory, &[&path.display().to_string(), "check that it is a readable file"]);
    assert!(matches!(error, DataError::Read { path: named, .. } if named == path));
}

#[test]
fn a_source_is_named_by_its_text() {
    for (text, source) in [
        ("embedded", Source::Embedded),
        ("fashion-mnist", Source::FashionMnist),
        ("some/where", Source::Directory("some/where".into())),
    ] {
        assert_eq!(text.parse::<Source>().unwrap(), source);
        assert_eq!(source.to_string(), text);
    }
}

#[test]
fn the_full_set_is_found_or_the_package_is_named() {
    match Source::FashionMnist.load() {
        Ok(data) => assert_eq!((data.train.len(), data.test.len()), (60_000, 10_000)),
        Err(error) => {
            let message = error.to_string();
            assert!(
                message.contains("dataset-fashion-mnist") && message.contains(FASHION_MNIST_DIRECTORIES[0]),
                "{message}"
            );
        }
    }
}

#[test]
fn a_stratified_part_is_balanced_and_pinned_by_its_seed() {
    let labels: Vec<u8> = (0..300).map(|n| (n * n % 7) as u8).collect();
    let set = DataSet::new(Shape { channels: 1, height: 1, width: 1 }, 7, vec![0; 300], labels);
    let chosen = set.stratified(20, Seed(3));
    assert!(chosen.is_sorted_by(|a, b| a < b));
    assert_eq!(chosen, set.stratified(20, Seed(3)));
    assert_ne!(chosen, set.stratified(20, Seed(4)));
    for class in 0..7 {
        let there = set.labels().iter().filter(|&&label| label == class).count();
        let part = chosen.iter().filter(|&&sample| set.labels()[sample as usize] == class).count();
        assert_eq!(part, there.min(20), "class {class}");
    }
}
