// dx ← u·r·(s + x·v·s·(1 − s)) − r³·(x − mean)/count · Σ_group u·x·s, with s = σ(v·x), u = dy·γ, r = 1/√(var + ε); r goes
// to scratch for the gradients of the parameters.
//
// One workgroup per sample and group, as in evo_forward.wgsl.
//
// Table: first and end of the workgroups, what to add to places in parameters, x, dy, dx and scratch, channels, positions, groups, ε, offset of [γ; β; v].

@group(0) @binding(1) var<storage, read> parameters: array<f32>;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read> dy: array<f32>;
@group(0) @binding(4) var<storage, read_write> dx: array<f32>;
@group(0) @binding(5) var<storage, read_write> scratch: array<f32>;

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
    let channels = table[7];
    let width = channels / table[9];
    let first = (id / table[9]) * table[8] * channels;
    let lowest = (id % table[9]) * width;
    let count = width * table[8];
    var sum = 0.0;
    var through = 0.0;
    for (var member = local; member < count; member += THREADS) {
        let channel = lowest + member % width;
        let place = first + (member / width) * channels + channel;
        let value = x[place + table[3]];
        let at = table[11] + channel + table[2];
        sum += value;
        through += dy[place + table[4]] * parameters[at] * value * sigmoid(parameters[at + 2u * channels] * value);
    }
    let mean = total(local, sum) / f32(count);
    let inner = total(local, through);
    sum = 0.0;
    for (var member = local; member < count; member += THREADS) {
        let away = x[first + (member / width) * channels + lowest + member % width + table[3]] - mean;
        sum += away * away;
    }
    let r = 1.0 / sqrt(total(local, sum) / f32(count) + number(10u));
    let slope = r * r * r * inner / f32(count);
    for (var member = local; member < count; member += THREADS) {
        let channel = lowest + member % width;
        let place = first + (member / width) * channels + channel;
        let value = x[place + table[3]];
        let at = table[11] + channel + table[2];
        let v = parameters[at + 2u * channels];
        let s = sigmoid(v * value);
        let u = dy[place + table[4]] * parameters[at];
        dx[place + table[5]] = u * r * (s + value * v * s * (1.0 - s)) - slope * (value - mean);
    }
    if local == 0u {
        scratch[id + table[6]] = r;
    }
}
