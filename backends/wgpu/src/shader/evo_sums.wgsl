// scratch ← [Σ dy·x·s·r; Σ dy; Σ dy·γ·r·x²·s·(1 − s)] of every channel over every chunk of columns, with s = σ(v·x) and r
// from evo_backward.wgsl at the front of scratch.
//
// Threads as in moments.wgsl.
//
// Table: first and end of the workgroups, what to add to places in parameters, x, dy and scratch, channels, columns, across,
// columns of a chunk, workgroups of a chunk, positions, groups, offset of [γ; β; v], where
// the sums go in scratch.

@group(0) @binding(1) var<storage, read> parameters: array<f32>;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read> dy: array<f32>;
@group(0) @binding(4) var<storage, read_write> scratch: array<f32>;

const THREADS = 256u;

var<workgroup> of_gain: array<f32, THREADS>;
var<workgroup> of_shift: array<f32, THREADS>;
var<workgroup> of_v: array<f32, THREADS>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let id = table[0] + group.x + group.y * grid.x;
    if id >= table[1] {
        return;
    }
    let channels = table[6];
    let across = table[8];
    let lanes = THREADS / across;
    let lane = local / across;
    let channel = (id % table[10]) * across + local % across;
    let chunk = id / table[10];
    let end = min(chunk * table[9] + table[9], table[7]);
    var gains = 0.0;
    var shifts = 0.0;
    var vs = 0.0;
    if channel < channels {
        let gain = parameters[table[13] + channel + table[2]];
        let v = parameters[table[13] + 2u * channels + channel + table[2]];
        let member = channel / (channels / table[12]);
        for (var column = chunk * table[9] + lane; column < end; column += lanes) {
            let value = x[column * channels + channel + table[3]];
            let gradient = dy[column * channels + channel + table[4]];
            let r = scratch[(column / table[11]) * table[12] + member + table[5]];
            let s = sigmoid(v * value);
            gains += gradient * value * s * r;
            shifts += gradient;
            vs += gradient * gain * r * value * value * s * (1.0 - s);
        }
    }
    of_gain[local] = gains;
    of_shift[local] = shifts;
    of_v[local] = vs;
    workgroupBarrier();
    for (var half = lanes / 2u; half > 0u; half /= 2u) {
        if lane < half {
            of_gain[local] += of_gain[local + half * across];
            of_shift[local] += of_shift[local + half * across];
            of_v[local] += of_v[local + half * across];
        }
        workgroupBarrier();
    }
    if lane == 0u && channel < channels {
        let place = table[5] + table[14] + 3u * (chunk * channels + channel);
        scratch[place] = of_gain[local];
        scratch[place + 1u] = of_shift[local];
        scratch[place + 2u] = of_v[local];
    }
}
