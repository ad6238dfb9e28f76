// y[pixel, channel] ← x[stride · pixel, channel − front], 0 for channels that x has not; or added to y.
//
// Table: first and end of the elements, what to add to places in x and y, 1 to add, stride, channels, height and width of x, of y.

@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

fn one(element: u32) {
    let channels = table[9];
    let pixel = element / channels;
    let across = pixel % table[11];
    let down = (pixel / table[11]) % table[10];
    let sample = pixel / (table[10] * table[11]);
    // Channels in front of those of x wrap around to numbers that x has not.
    let channel = element % channels - (channels - table[6]) / 2u;
    var value = 0.0;
    if channel < table[6] {
        value = x[((sample * table[7] + down * table[5]) * table[8] + across * table[5]) * table[6] + channel + table[2]];
    }
    if table[4] != 0u {
        value += y[element + table[3]];
    }
    y[element + table[3]] = value;
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
