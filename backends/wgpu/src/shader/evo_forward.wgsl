// y ← x·σ(v·x)·r·γ + β with r = 1/√(var + ε), the variance over one group of channels of one sample.
//
// One workgroup per sample and group; trees add up mean and variance.
//
// Table: first and end of the workgroups, what to add to places in parameters, x and y, channels, positions, groups, ε, offset of [γ; β; v].

@group(0) @binding(1) var<storage, read> parameters: array<f32>;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

const THREADS = 128u;

var<workgroup> partial: array<f32, THREADS>;

fn total(local: u32, value: f32) -> f32 {
    partial[local] = value;
    workgroupBarrier();
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        if local < half {
            partial[local] += partial[local + half];
        }
        workgroupBarrier();
    }
    let sum = partial[0];
    workgroupBarrier();
    return sum;
}

@compute @workgroup_size(128)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let id = table[0] + group.x + group.y * grid.x;
    if id >= table[1] {
        return;
    }
    let channels = table[5];
    let width = channels / table[7];
    let first = (id / table[7]) * table[6] * channels;
    let lowest = (id % table[7]) * width;
    let count = width * table[6];
    var sum = 0.0;
    for (var member = local; member < count; member += THREADS) {
        sum += x[first + (member / width) * channels + lowest + member % width + table[3]];
    }
    let mean = total(local, sum) / f32(count);
    sum = 0.0;
    for (var member = local; member < count; member += THREADS) {
        let away = x[first + (member / width) * channels + lowest + member % width + table[3]] - mean;
        sum += away * away;
    }
    let r = 1.0 / sqrt(total(local, sum) / f32(count) + number(8u));
    for (var member = local; member < count; member += THREADS) {
        let channel = lowest + member % width;
        let place = first + (member / width) * channels + channel;
        let value = x[place + table[3]];
        let at = table[9] + channel + table[2];
        let s = sigmoid(parameters[at + 2u * channels] * value);
        y[place + table[4]] = value * s * r * parameters[at] + parameters[at + channels];
    }
}
