// y ← the largest element of every window (NaN wins, padding never), or the mean with padding counted as zeros.
//
// Table: first and end of the elements, what to add to places in x and y, 1 for the mean, then the geometry.

@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

const G = 5u;

fn one(element: u32) {
    let channels = table[G];
    let channel = element % channels;
    let pixel = element / channels;
    let across = pixel % table[G + 5u];
    let down = (pixel / table[G + 5u]) % table[G + 4u];
    let sample = pixel / (table[G + 4u] * table[G + 5u]);
    let share = 1.0 / f32(table[G + 6u] * table[G + 7u]);
    var sum = 0.0;
    var largest = -3.4028235e38;
    var found = false;
    for (var p = 0u; p < table[G + 6u]; p++) {
        for (var q = 0u; q < table[G + 7u]; q++) {
            // Places in padding wrap around to numbers that no image has.
            let i = down * table[G + 8u] + p - table[G + 10u];
            let j = across * table[G + 9u] + q - table[G + 11u];
            if i < table[G + 1u] && j < table[G + 2u] {
                let value = x[((sample * table[G + 1u] + i) * table[G + 2u] + j) * channels + channel + table[2]];
                sum += value * share;
                if !found || is_nan(value) || value > largest {
                    largest = value;
                    found = true;
                }
            }
        }
    }
    y[element + table[3]] = select(largest, sum, table[4] != 0u);
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
