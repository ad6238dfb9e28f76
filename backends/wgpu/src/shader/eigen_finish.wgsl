// A ← Q, its columns in the order of their eigenvalues. See eigen_block.wgsl.
//
// One workgroup per column.

@group(0) @binding(1) var<storage, read_write> line: array<f32>;
@group(0) @binding(2) var<storage, read> scratch: array<f32>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let id = group.x + group.y * grid.x;
    if id >= table[0] {
        return;
    }
    let at = job_of(id);
    let n = table[at + 1u];
    let column = id - table[at];
    let target_ = table[at + 2u] + u32(scratch[maxima_of(at) + column]) * table[at + 3u];
    for (var row = local; row < n; row += 64u) {
        line[target_ + row] = scratch[table[at + 5u] + row + column * n];
    }
}
