//! How fast compressors are, on one core.
//!
//! ```text
//! cargo bench -p kronfleet-core                # everything, in half a minute
//! cargo bench -p kronfleet-core -- top         # whatever has this in its name
//! ```
//!
//! Ten million normal values in single precision (40 MB, more than caches hold); `thrpt` is in bytes of these, whichever
//! way they go.

use core::hint::black_box;
use core::time::Duration;
use criterion::{BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use kronfleet_core::compress::{
    Blockwise, Compressor, Identity, Kept, LowRank, Quantised, RandomK, Rounding, Selection, Short, Sign, TopK,
};
use kronfleet_core::seed::Seed;

const VALUES: usize = 10_000_000;

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    let mut random = Seed(1).random();
    let values: Vec<f32> = (0..VALUES).map(|_| random.normal() as f32).collect();
    let mut group = criterion.benchmark_group("compress");
    group.throughput(Throughput::Bytes(4 * VALUES as u64));
    let tenth = Kept::per_million(100_000);
    let hundredth = Kept::per_million(10_000);
    for kept in [tenth, hundredth] {
        let mut selection = Selection::default();
        group.bench_function(format!("selection {kept}"), |bencher| {
            bencher.iter(|| selection.largest(black_box(&values), kept.of(VALUES)).map(<[u32]>::len));
        });
        both(&mut group, &format!("top-k {kept}"), TopK::new(kept), &values);
    }
    both(&mut group, "random-k 0.1", RandomK::contracting(tenth), &values);
    both(&mut group, "sign", Sign, &values);
    both(&mut group, "qsgd 7", Quantised::unbiased(7), &values);
    both(&mut group, "bf16", Short::bf16(Rounding::Nearest), &values);
    both(&mut group, "blockwise 8-bit", Blockwise, &values);
    both(&mut group, "rank 2", LowRank::new(2), &values);
    both(&mut group, "identity", Identity, &values);
    group.finish();
    criterion.final_summary();
}

fn both(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, mut compressor: impl Compressor<f32>, values: &[f32]) {
    let mut random = Seed(2).random();
    let mut bytes = Vec::new();
    group.bench_function(format!("{name} encode"), |bencher| {
        bencher.iter(|| {
            bytes.clear();
            compressor.encode(black_box(values), &mut random, &mut bytes).expect("finite values");
        });
    });
    let mut decoded = vec![0.0; values.len()];
    group.bench_function(format!("{name} decode"), |bencher| {
        bencher.iter(|| compressor.decode(black_box(&bytes), &mut decoded).expect("what was encoded"));
    });
}
