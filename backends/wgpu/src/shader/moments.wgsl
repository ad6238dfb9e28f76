// scratch ← [mean; Σ (x − mean)²] of every channel over every chunk of columns.
//
// A workgroup takes `across` channels and one chunk; 256 / across threads share a channel's columns, a tree adds them up.
//
// Table: first and end of the workgroups, what to add to places in x and scratch, channels, columns, across, columns of a
// chunk, workgroups of a chunk.

@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> scratch: array<f32>;

const THREADS = 256u;

var<workgroup> partial: array<f32, THREADS>;

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
    let channels = table[4];
    let across = table[6];
    let lanes = THREADS / across;
    let lane = local / across;
    let channel = (id % table[8]) * across + local % across;
    let chunk = id / table[8];
    let start = chunk * table[7];
    let end = min(start + table[7], table[5]);
    var sum = 0.0;
    if channel < channels {
        for (var column = start + lane; column < end; column += lanes) {
            sum += x[column * channels + channel + table[2]];
        }
    }
    partial[local] = sum;
    workgroupBarrier();
    for (var half = lanes / 2u; half > 0u; half /= 2u) {
        if lane < half {
            partial[local] += partial[local + half * across];
        }
        workgroupBarrier();
    }
    let mean = partial[local % across] / f32(end - start);
    workgroupBarrier();
    sum = 0.0;
    if channel < channels {
        for (var column = start + lane; column < end; column += lanes) {
            let away = x[column * channels + channel + table[2]] - mean;
            sum += away * away;
        }
    }
    partial[local] = sum;
    workgroupBarrier();
    for (var half = lanes / 2u; half > 0u; half /= 2u) {
        if lane < half {
            partial[local] += partial[local + half * across];
        }
        workgroupBarrier();
    }
    if lane == 0u && channel < channels {
        scratch[2u * (chunk * channels + channel) + table[3]] = mean;
        scratch[2u * (chunk * channels + channel) + 1u + table[3]] = partial[local];
    }
}
