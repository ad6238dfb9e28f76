// dx[stride · pixel, channel] += dy[pixel, channel + front]: the adjoint of subsample.
//
// Table: elements of dx, 0, stride, channels, height and width of x, of y.

@group(0) @binding(1) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read_write> dx: array<f32>;

fn one(element: u32) {
    let channels = table[3];
    let pixel = element / channels;
    let j = pixel % table[5];
    let i = (pixel / table[5]) % table[4];
    let sample = pixel / (table[4] * table[5]);
    let across = j / table[2];
    let down = i / table[2];
    if j % table[2] != 0u || i % table[2] != 0u || down >= table[7] || across >= table[8] {
        return;
    }
    let channel = element % channels + (table[6] - channels) / 2u;
    dx[element] += dy[((sample * table[7] + down) * table[8] + across) * table[6] + channel];
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let first = (group.x + group.y * grid.x) * 256u + local;
    for (var element = first; element < min(table[0], first + 256u); element += 64u) {
        one(element);
    }
}
