//! Which shaders compute products: all give the same bits, the fastest is found, and what was measured is kept.

use kronfleet_core::backend::{Backend, Gemm, Outer};
use kronfleet_core::matrix::Region;
use kronfleet_core::seed::{Random, Seed};
use kronfleet_wgpu::{Buffer, Choice, Clock, Device, Options, Tuning, Variant, Wgpu};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The same adapter, opened with this tuning.
fn open(device: &Device, tuning: Tuning) -> Device {
    let adapter = Choice::Named(device.adapter().name.clone());
    Device::open_with(&Options { adapter, tuning, ..Options::default() }).expect("once more")
}

fn normal(random: &mut Random, backend: &mut Wgpu, len: usize) -> Buffer {
    let content: Vec<f32> = (0..len).map(|_| random.normal() as f32).collect();
    let mut buffer = backend.allocate(len).expect("memory");
    backend.upload(&content, &mut buffer, 0).expect("a device");
    buffer
}

/// Products of odd shapes in every orientation, and symmetric ones, by every shader.
pub(crate) fn same_bits(device: &Device) {
    let results = Variant::ALL.map(|variant| {
        let mut backend = Wgpu::new(&open(device, Tuning::Only(variant))).expect("a device");
        let mut random = Seed(7).derive("operands", 0).random();
        let (a, b) = (normal(&mut random, &mut backend, 4_000), normal(&mut random, &mut backend, 4_000));
        let mut c = normal(&mut random, &mut backend, 10_000);
        for (m, n, k) in [(1, 1, 1), (5, 33, 7), (70, 3, 50), (17, 65, 40), (2, 2, 2_000)] {
            let (of_a, of_b) = (Region::matrix(0, m, k), Region::matrix(0, k, n));
            let (turned_a, turned_b) = (Region::matrix(0, k, m).transposed(), Region::matrix(0, n, k).transposed());
            let of_c = Region::matrix(0, m, n);
            for (a_region, b_region) in [(of_a, of_b), (turned_a, of_b), (of_a, turned_b), (turned_a, turned_b)] {
                let job = Gemm { alpha: 0.5, a: a_region, b: b_region, beta: 0.25, c: of_c };
                backend.gemm(&[job], &a, &b, &mut c).expect("a device");
            }
            let square = Region::matrix(5_000, m, m);
            let job = Outer { alpha: 0.5, x: of_a, beta: 0.25, c: square };
            backend.symmetric_product(&[job], &a, &mut c).expect("a device");
        }
        let seen = backend.fetch(&c, 0..10_000).expect("a device");
        (variant, seen.into_iter().map(f32::to_bits).collect::<Vec<u32>>())
    });
    let (_, first) = &results[0];
    for (variant, bits) in &results {
        let differing = bits.iter().zip(first).filter(|(one, other)| one != other).count();
        assert_eq!(differing, 0, "{variant} gives other bits than {}", results[0].0);
    }
}

/// Times of one product by two backends, taken in turns.
fn race(backends: [&mut Wgpu; 2], (m, n, k): (usize, usize, usize)) -> [Duration; 2] {
    let mut random = Seed(8).derive("operands", 0).random();
    let job = Gemm::product(Region::matrix(0, m, k), Region::matrix(0, k, n), Region::matrix(0, m, n));
    let mut runners = backends.map(|backend| {
        let (a, b) = (normal(&mut random, backend, m * k), normal(&mut random, backend, k * n));
        let c = backend.allocate(m * n).expect("memory");
        let times: Vec<Duration> = Vec::new();
        (backend, a, b, c, times)
    });
    for _ in 0..10 {
        for (backend, a, b, c, times) in &mut runners {
            let start = Instant::now();
            backend.gemm(&[job], a, b, c).expect("a device");
            backend.sync().expect("a device");
            times.push(start.elapsed());
        }
    }
    runners.map(|(.., mut times)| {
        // The first one compiles.
        times.remove(0);
        times.sort();
        times[times.len() / 2]
    })
}

/// What was measured is not slower than the naive shader, by medians of turns and with room for other work on the machine. Where
/// that disturbs one measurement of both, it is made again, twice at most.
pub(crate) fn chosen_is_fast(device: &Device) {
    let mut slow = slower(device);
    for _ in 0..2 {
        if !slow.is_empty() {
            println!("  once more: {slow:?}");
            slow = slower(device);
        }
    }
    assert!(slow.is_empty(), "three times: {slow:?}");
}

/// Products that take longer than with the naive shader after shaders were chosen anew, with both times.
fn slower(device: &Device) -> Vec<String> {
    let start = Instant::now();
    let tuned = open(device, Tuning::Measured { cache: None });
    let clock = tuned.clock().expect("they were timed");
    println!("  measured in {} ms by {clock}", start.elapsed().as_millis());
    assert!(clock == Clock::Host || device.adapter().has_timestamps);
    assert_eq!(device.clock(), None, "fixed choices");
    for (class, variant) in tuned.products() {
        println!("  {class}: {variant}");
    }
    let mut chosen = Wgpu::new(&tuned).expect("a device");
    let mut naive = Wgpu::new(&open(device, Tuning::Only(Variant::Naive))).expect("a device");
    let mut slower = Vec::new();
    for shape in [(16, 300, 100), (120, 64, 401), (192, 192, 192)] {
        let [own, plain] = race([&mut chosen, &mut naive], shape);
        println!("  {shape:?}: {own:?}, naive {plain:?}");
        if own > plain * 3 / 2 {
            slower.push(format!("{shape:?} takes {own:?}, with the naive shader {plain:?}"));
        }
    }
    slower
}

fn only_file(folder: &Path) -> PathBuf {
    let files: Vec<PathBuf> =
        fs::read_dir(folder).expect("a folder").map(|file| file.expect("a file").path()).collect();
    assert_eq!(files.len(), 1, "one file per adapter: {files:?}");
    files[0].clone()
}

/// What was measured is read again; a file that is damaged or of another adapter is measured anew, and that is said.
pub(crate) fn measured_once(device: &Device) {
    let folder = std::env::temp_dir().join(format!("kronfleet-products-{}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    let tuning = Tuning::Measured { cache: Some(folder.clone()) };
    let first = open(device, tuning.clone());
    assert_eq!(first.warning(), None);
    let file = only_file(&folder);
    let kept = fs::read_to_string(&file).expect("text");
    assert!(kept.contains(&device.adapter().name) && kept.contains(&device.adapter().driver), "{kept}");
    // Chosen otherwise than anybody would: only who reads the file gets that.
    let mut head = kept.lines();
    let [key, clock] = [head.next(), head.next()].map(|line| line.expect("lines"));
    let mut other = format!("{key}\n{clock}\n");
    for (class, _) in first.products() {
        other += &format!("{class}: naive\n");
    }
    fs::write(&file, &other).expect("a file");
    let second = open(device, tuning.clone());
    assert_eq!(second.warning(), None);
    assert_eq!(second.clock(), first.clock());
    assert!(second.products().iter().all(|&(_, variant)| variant == Variant::Naive), "{:?}", second.products());
    let foreign = other.replacen(key, &format!("{key}, of another machine"), 1);
    for damaged in [foreign, other[..other.len() / 2].to_owned()] {
        fs::write(&file, damaged).expect("a file");
        let opened = open(device, tuning.clone());
        let warning = opened.warning().expect("it is said");
        assert!(warning.contains(&*file.to_string_lossy()), "{warning}");
        assert_eq!(only_file(&folder), file);
        let again = fs::read_to_string(&file).expect("text");
        assert_eq!(again.lines().next(), Some(key), "written anew");
        assert_eq!(again.lines().count(), 2 + opened.products().len());
    }
    fs::remove_dir_all(&folder).expect("it is there");
}
