// A product without workgroup memory, see product_job.wgsl: a thread computes 4 × 4 elements in registers and reads 8 numbers
// for the 32 operations of every term; the threads of a workgroup of 8 × 8 share what they read through caches.

@compute @workgroup_size(8, 8)
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
    let rows = table[at + 2u];
    let columns = table[at + 3u];
    let row = tile.row * 32u + 4u * thread.x;
    let column = tile.column * 32u + 4u * thread.y;
    var sum0 = vec4<f32>();
    var sum1 = vec4<f32>();
    var sum2 = vec4<f32>();
    var sum3 = vec4<f32>();
    if row < rows && column < columns {
        for (var term = tile.first; term < tile.end; term++) {
            let of_a = four_of_a(at, term, row, rows, tile.end);
            let of_b = four_of_b(at, term, column, columns, tile.end);
            sum0 += of_a * of_b.x;
            sum1 += of_a * of_b.y;
            sum2 += of_a * of_b.z;
            sum3 += of_a * of_b.w;
        }
    }
    // Column by column: the first of four sums is that of the first column.
    for (var j = 0u; j < 4u; j++) {
        var sum = sum0;
        if j == 1u { sum = sum1; }
        if j == 2u { sum = sum2; }
        if j == 3u { sum = sum3; }
        for (var i = 0u; i < 4u; i++) {
            store(at, tile.part, row + i, column + j, sum[i]);
        }
    }
}
