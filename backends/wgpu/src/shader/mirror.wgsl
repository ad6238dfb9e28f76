// m[row, column] ← m[column, row] for row < column, for every job.
//
// Table: workgroups, jobs; then per job: its first workgroup, rows, offset, row step, column step.

@group(0) @binding(1) var<storage, read_write> line: array<f32>;

const HEADER = 2u;
const RECORD = 5u;

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
    let element = (id - table[at]) * 64u + local;
    let row = element % n;
    let column = element / n;
    if column < n && row < column {
        let down = table[at + 3u];
        let across = table[at + 4u];
        line[table[at + 2u] + row * down + column * across] = line[table[at + 2u] + column * down + row * across];
    }
}
