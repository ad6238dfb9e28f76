// A product, an element per thread, see product_job.wgsl: 2 numbers read for the 2 operations of every term. What the others
// are measured by.

@compute @workgroup_size(16, 16)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_id) thread: vec3<u32>,
) {
    let id = group.x + group.y * grid.x;
    if id >= table[0] {
        return;
    }
    let tile = tile_of(id);
    let at = tile.at;
    let row = tile.row * 16u + thread.x;
    let column = tile.column * 16u + thread.y;
    if row >= table[at + 2u] || column >= table[at + 3u] {
        return;
    }
    let of_a = table[at + 5u] + row * table[at + 6u];
    let of_b = table[at + 8u] + column * table[at + 10u];
    var sum = 0.0;
    for (var term = tile.first; term < tile.end; term++) {
        sum += f32(a_line[of_a + term * table[at + 7u]]) * f32(b_line[of_b + term * table[at + 9u]]);
    }
    store(at, tile.part, row, column, sum);
}
