// patches[row, (sample, position)] ← the pixel that a patch's row sees at that position, 0 in padding, 1 in the bias's row.
//
// A Patch is a number as patches are kept: f32, or f16, which rounds.
//
// Table: first and end of the elements, what to add to places in x and patches, first sample, then the geometry.

@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> patches: array<Patch>;

const G = 5u;

fn one(element: u32) {
    let channels = table[G];
    let len = channels * table[G + 6u] * table[G + 7u];
    let rows = len + table[G + 14u];
    let row = element % rows;
    let patch_number = element / rows;
    if row >= len {
        patches[element + table[3]] = Patch(1.0);
        return;
    }
    let channel = row % channels;
    let tap = row / channels;
    let across = patch_number % table[G + 5u];
    let down = (patch_number / table[G + 5u]) % table[G + 4u];
    let sample = table[4] + patch_number / (table[G + 4u] * table[G + 5u]);
    // Places in padding wrap around to numbers that no image has.
    let i = down * table[G + 8u] + (tap / table[G + 7u]) * table[G + 12u] - table[G + 10u];
    let j = across * table[G + 9u] + (tap % table[G + 7u]) * table[G + 13u] - table[G + 11u];
    var value = 0.0;
    if i < table[G + 1u] && j < table[G + 2u] {
        value = x[((sample * table[G + 1u] + i) * table[G + 2u] + j) * channels + channel + table[2]];
    }
    patches[element + table[3]] = Patch(value);
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
