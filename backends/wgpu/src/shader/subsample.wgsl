// y[pixel, channel] ← x[stride · pixel, channel − front], 0 for channels that x has not; or added to y.
//
// Table: elements of y, 1 to add, stride, channels, height and width of x, of y.

@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

fn one(element: u32) {
    let channels = table[6];
    let pixel = element / channels;
    let across = pixel % table[8];
    let down = (pixel / table[8]) % table[7];
    let sample = pixel / (table[7] * table[8]);
    // Channels in front of those of x wrap around to numbers that x has not.
    let channel = element % channels - (channels - table[3]) / 2u;
    var value = 0.0;
    if channel < table[3] {
        value = x[((sample * table[4] + down * table[2]) * table[5] + across * table[2]) * table[3] + channel];
    }
    if table[1] != 0u {
        value += y[element];
    }
    y[element] = value;
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
