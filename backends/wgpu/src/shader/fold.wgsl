// x[pixel] ← Σ of the patch elements that came from the pixel: the adjoint of unfold, gathered in the kernel's order.
//
// Table: first and end of the elements, what to add to places in patches and x, first sample, then the geometry.

@group(0) @binding(1) var<storage, read> patches: array<f32>;
@group(0) @binding(2) var<storage, read_write> x: array<f32>;

const G = 5u;

fn one(element: u32) {
    let channels = table[G];
    let rows = channels * table[G + 6u] * table[G + 7u];
    let channel = element % channels;
    let pixel = element / channels;
    let j = pixel % table[G + 2u];
    let i = (pixel / table[G + 2u]) % table[G + 1u];
    let sample = pixel / (table[G + 1u] * table[G + 2u]);
    var sum = 0.0;
    for (var p = 0u; p < table[G + 6u]; p++) {
        let reach = i + table[G + 10u];
        let down = (reach - p * table[G + 12u]) / table[G + 8u];
        if reach < p * table[G + 12u] || (reach - p * table[G + 12u]) % table[G + 8u] != 0u || down >= table[G + 4u] {
            continue;
        }
        for (var q = 0u; q < table[G + 7u]; q++) {
            let width = j + table[G + 11u];
            let across = (width - q * table[G + 13u]) / table[G + 9u];
            if width < q * table[G + 13u] || (width - q * table[G + 13u]) % table[G + 9u] != 0u || across >= table[G + 5u] {
                continue;
            }
            let column = (sample * table[G + 4u] + down) * table[G + 5u] + across;
            sum += patches[column * rows + (p * table[G + 7u] + q) * channels + channel + table[2]];
        }
    }
    x[table[4] * table[G + 1u] * table[G + 2u] * channels + element + table[3]] = sum;
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
