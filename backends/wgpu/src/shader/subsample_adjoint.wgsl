// dx[stride · pixel, channel] += dy[pixel, channel + front]: the adjoint of subsample.
//
// Table: first and end of the elements, what to add to places in dy and dx, 0, stride, channels, height and width of x, of y.

@group(0) @binding(1) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read_write> dx: array<f32>;

fn one(element: u32) {
    let channels = table[6];
    let pixel = element / channels;
    let j = pixel % table[8];
    let i = (pixel / table[8]) % table[7];
    let sample = pixel / (table[7] * table[8]);
    let across = j / table[5];
    let down = i / table[5];
    if j % table[5] != 0u || i % table[5] != 0u || down >= table[10] || across >= table[11] {
        return;
    }
    let channel = element % channels + (table[9] - channels) / 2u;
    dx[element + table[3]] += dy[((sample * table[10] + down) * table[11] + across) * table[9] + channel + table[2]];
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let first = table[0] + (group.x + group.y * grid.x) * 256u + local;
    for (var element = first; element < min(table[1], first + 256u); element += 64u) {
        one(element);
    }
}
