// x ← (L·Lᵀ)⁻¹·x for every job, by substitution: one thread per column, L·y = x downwards, then Lᵀ·x = y upwards.
//
// Table: workgroups, jobs; then per job: its first workgroup, n, columns, offset and column step of L, of x.

@group(0) @binding(1) var<storage, read> factor: array<f32>;
@group(0) @binding(2) var<storage, read_write> line: array<f32>;

const HEADER = 2u;
const RECORD = 7u;

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
    var at = HEADER;
    for (var job = 1u; job < table[1] && table[at + RECORD] <= id; job++) {
        at += RECORD;
    }
    let n = table[at + 1u];
    let column = (id - table[at]) * 64u + local;
    if column >= table[at + 2u] {
        return;
    }
    let l = table[at + 3u];
    let step = table[at + 4u];
    let x = table[at + 5u] + column * table[at + 6u];
    for (var row = 0u; row < n; row++) {
        var rest = line[x + row];
        for (var k = 0u; k < row; k++) {
            rest -= factor[l + row + k * step] * line[x + k];
        }
        line[x + row] = rest / factor[l + row + row * step];
    }
    for (var up = 0u; up < n; up++) {
        let row = n - 1u - up;
        var rest = line[x + row];
        for (var k = row + 1u; k < n; k++) {
            rest -= factor[l + k + row * step] * line[x + k];
        }
        line[x + row] = rest / factor[l + row + row * step];
    }
}
