//! Samplers leave nothing out, feeds agree with the equation of their layout, and neither allocates.

use kronfleet_core::scalar::Scalar;
use kronfleet_core::seed::Seed;
use kronfleet_examples::data::augmentation::{Augmentation, View};
use kronfleet_examples::data::feed::Feed;
use kronfleet_examples::data::normalisation::Normalisation;
use kronfleet_examples::data::sampler::Sampler;
use kronfleet_examples::data::set::{DataSet, Shape};
use proptest::collection::vec;
use proptest::prelude::*;

/// A set whose every byte tells its place.
fn set(shape: Shape, samples: usize) -> DataSet {
    let mut noise = Seed(9).random();
    let pixels = (0..samples * shape.len()).map(|_| noise.bits() as u8).collect();
    DataSet::new(shape, 10, pixels, (0..samples).map(|n| (n % 10) as u8).collect())
}

fn shape() -> impl Strategy<Value = Shape> {
    (1..5_usize, 1..9_usize, 1..9_usize).prop_map(|(channels, height, width)| Shape { channels, height, width })
}

/// What a pixel of the batch should be, from the equations alone.
fn pixel(set: &DataSet, normalisation: &Normalisation, sample: u32, view: View, [h, w, c]: [usize; 3]) -> f64 {
    let Shape { channels, height, width } = set.shape();
    let column = if view.mirrored { width - 1 - w } else { w } as isize + view.right;
    let row = h as isize + view.down;
    let inside = (0..height as isize).contains(&row) && (0..width as isize).contains(&column);
    let byte = match inside {
        true => set.pixels()[((sample as usize * height + row as usize) * width + column as usize) * channels + c],
        false => 0,
    };
    (f64::from(byte) / 255.0 - normalisation.mean[c]) / normalisation.deviation[c]
}

fn agrees<S: Scalar>(shape: Shape, samples: &[u32], augmentation: Option<Augmentation>, draw: u64) {
    let set = set(shape, 20);
    let normalisation = Normalisation::of(&set);
    let feed = Feed::<S>::new(&set, &normalisation, augmentation);
    let mut pixels = vec![S::nan(); samples.len() * shape.len()];
    let mut labels = vec![u32::MAX; samples.len()];
    feed.fill(&set, samples, draw, &mut pixels, &mut labels);
    let largest = normalisation.deviation.iter().fold(0.0, |most: f64, deviation| most.max(1.0 / deviation));
    // Two roundings of coefficients, one of the product, one of the sum, each of numbers up to `largest`.
    let tolerance = 4.0 * S::EPSILON * largest;
    for (n, &sample) in samples.iter().enumerate() {
        assert_eq!(labels[n], sample % 10);
        let view = augmentation.map_or(View::default(), |augmentation| augmentation.view(draw + n as u64));
        for h in 0..shape.height {
            for w in 0..shape.width {
                for c in 0..shape.channels {
                    let found = pixels[((n * shape.height + h) * shape.width + w) * shape.channels + c].wide();
                    let expected = pixel(&set, &normalisation, sample, view, [h, w, c]);
                    assert!((found - expected).abs() <= tolerance, "[{n}, {h}, {w}, {c}]: {found} for {expected}");
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn a_batch_is_what_the_equation_says(shape in shape(), samples in vec(0..20_u32, 0..9)) {
        agrees::<f32>(shape, &samples, None, 0);
        agrees::<f64>(shape, &samples, None, 0);
    }

    #[test]
    fn an_augmented_batch_is_what_its_views_say(
        shape in shape(),
        samples in vec(0..20_u32, 0..9),
        padding in 0..12_usize,
        flip in any::<bool>(),
        draw in 0..1_000_000_u64,
    ) {
        agrees::<f32>(shape, &samples, Some(Augmentation { padding, flip, seed: Seed(3) }), draw);
    }

    #[test]
    fn every_epoch_has_every_sample_once(
        len in 1..50_u32,
        sizes in vec(0..70_usize, 1..10),
        seed in any::<u64>(),
    ) {
        let share: Vec<u32> = (0..len).map(|n| 3 * n + 1).collect();
        let mut sampler = Sampler::new(&share, Seed(seed));
        let mut drawn = Vec::new();
        for size in sizes {
            let mut batch = vec![0; size];
            prop_assert_eq!(sampler.draw(&mut batch), drawn.len() as u64);
            drawn.extend(batch);
            prop_assert_eq!(sampler.epoch(), (drawn.len() / share.len()) as u64);
        }
        for epoch in drawn.chunks(share.len()) {
            let mut epoch = epoch.to_vec();
            epoch.sort_unstable();
            epoch.dedup();
            prop_assert!(epoch.iter().all(|sample| share.contains(sample)));
            prop_assert!(epoch.len() == share.len() || epoch.len() == drawn.len() % share.len());
        }
    }

    #[test]
    fn a_restored_sampler_goes_on_as_the_first(len in 1..50_u32, before in 0..200_usize, after in 1..200_usize) {
        let share: Vec<u32> = (0..len).collect();
        let mut first = Sampler::new(&share, Seed(7));
        first.draw(&mut vec![0; before]);
        let mut second = Sampler::new(&share, Seed(7));
        second.restore(first.cursor());
        let (mut a, mut b) = (vec![0; after], vec![0; after]);
        prop_assert_eq!(first.draw(&mut a), second.draw(&mut b));
        prop_assert_eq!(a, b);
        prop_assert_eq!(first, second);
    }
}

#[test]
fn epochs_and_seeds_differ() {
    let share: Vec<u32> = (0..100).collect();
    let mut sampler = Sampler::new(&share, Seed(1));
    let [mut first, mut second, mut other] = [[0; 100]; 3];
    sampler.draw(&mut first);
    sampler.draw(&mut second);
    Sampler::new(&share, Seed(2)).draw(&mut other);
    assert!(first != second && first != other && !first.is_sorted());
}

#[test]
fn views_are_uniform_and_belong_to_their_draw() {
    let augmentation = Augmentation::new(Seed(1));
    let (mut shifts, mut mirrored) = ([[0_u32; 9]; 2], 0_u32);
    for draw in 0..9_000 {
        let view = augmentation.view(draw);
        assert_eq!(view, augmentation.view(draw));
        shifts[0][(view.down + 4) as usize] += 1;
        shifts[1][(view.right + 4) as usize] += 1;
        mirrored += u32::from(view.mirrored);
    }
    // Six standard deviations of binomials: (9 000, 1/9) and (9 000, 1/2).
    assert!(shifts.iter().flatten().all(|count| count.abs_diff(1_000) < 179), "{shifts:?}");
    assert!(mirrored.abs_diff(4_500) < 285, "{mirrored}");
}

#[test]
fn drawing_and_filling_allocate_nothing() {
    let shape = Shape { channels: 3, height: 32, width: 32 };
    let set = set(shape, 100);
    let normalisation = Normalisation::of(&set);
    let mut sampler = Sampler::new(&(0..100).collect::<Vec<_>>(), Seed(1));
    let feeds = [None, Some(Augmentation::new(Seed(2)))]
        .map(|augmentation| Feed::<f32>::new(&set, &normalisation, augmentation));
    let (mut samples, mut labels, mut pixels) = ([0; 64], [0; 64], vec![0.0; 64 * shape.len()]);
    let counted = allocation_counter::measure(|| {
        for _ in 0..5 {
            for feed in &feeds {
                let draw = sampler.draw(&mut samples);
                feed.fill(&set, &samples, draw, &mut pixels, &mut labels);
            }
        }
    });
    assert_eq!(counted.count_total, 0);
    // The counter counts.
    assert_eq!(allocation_counter::measure(|| drop(std::hint::black_box(vec![0_u8; 10]))).count_total, 1);
}

#[test]
#[should_panic(expected = "room for 3 pixels and 1 labels, but 1 samples of 1 × 2 × 2")]
fn a_batch_of_the_wrong_size_is_a_bug() {
    let set = set(Shape { channels: 1, height: 2, width: 2 }, 1);
    Feed::<f32>::new(&set, &Normalisation::of(&set), None).fill(&set, &[0], 0, &mut [0.0; 3], &mut [0]);
}
