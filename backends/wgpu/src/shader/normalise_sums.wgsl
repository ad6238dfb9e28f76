// scratch ← [Σ dy·(x − mean)·scale; Σ dy] of every channel over every chunk of columns.
//
// Threads as in moments.wgsl.
//
// Table: first and end of the workgroups, what to add to places in x, saved, dy and scratch, channels, columns, across,
// columns of a chunk, workgroups of a chunk.

@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> saved: array<f32>;
@group(0) @binding(3) var<storage, read> dy: array<f32>;
@group(0) @binding(4) var<storage, read_write> scratch: array<f32>;

const THREADS = 256u;

var<workgroup> of_scale: array<f32, THREADS>;
var<workgroup> of_shift: array<f32, THREADS>;

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
    var slopes = 0.0;
    var levels = 0.0;
    if channel < channels {
        let mean = saved[channel + table[3]];
        let scale = saved[channels + channel + table[3]];
        for (var column = chunk * table[9] + lane; column < end; column += lanes) {
            let gradient = dy[column * channels + channel + table[4]];
            slopes += gradient * (x[column * channels + channel + table[2]] - mean) * scale;
            levels += gradient;
        }
    }
    of_scale[local] = slopes;
    of_shift[local] = levels;
    workgroupBarrier();
    for (var half = lanes / 2u; half > 0u; half /= 2u) {
        if lane < half {
            of_scale[local] += of_scale[local + half * across];
            of_shift[local] += of_shift[local + half * across];
        }
        workgroupBarrier();
    }
    if lane == 0u && channel < channels {
        scratch[2u * (chunk * channels + channel) + table[5]] = of_scale[local];
        scratch[2u * (chunk * channels + channel) + 1u + table[5]] = of_shift[local];
    }
}
