//! One device, several threads: evaluation does so.

use kronfleet_core::backend::Backend;
use kronfleet_core::matrix::Region;
use kronfleet_wgpu::{Device, Wgpu};
use std::thread;

const THREADS: usize = 4;
const ROUNDS: usize = 1000;

/// Every queue reads back what it has computed, however often others wait for the device meanwhile.
pub(crate) fn queues_of_threads(device: &Device) {
    thread::scope(|scope| {
        for number in 0..THREADS {
            scope.spawn(move || {
                let mut backend = Wgpu::new(device).expect("a queue of its own");
                let all = Region::vector(0, 3);
                let mut sums = backend.allocate(3).expect("three numbers");
                let mut step = backend.allocate(3).expect("three numbers");
                let of = |round: usize| [number, round, number * round].map(|value| value as f32);
                for round in 0..ROUNDS {
                    backend.upload(&of(round), &mut step, 0).expect("the device is there");
                    backend.axpby(1.0, &step, 0.0, &mut sums, all).expect("the device is there");
                    let seen = backend.fetch(&sums, 0..3).expect("the driver answers whoever asked");
                    assert_eq!(seen, of(round), "queue {number}, round {round}");
                }
            });
        }
    });
}
