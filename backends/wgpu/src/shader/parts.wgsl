// c ← α·Σ parts + β·c: what was cut along its sum, added up in ascending order.
//
// Table: workgroups, jobs; then per job: its first workgroup, rows, columns, offset and column step of c, α, β, 1 if
// symmetric, parts, offset in scratch.

@group(0) @binding(1) var<storage, read> scratch: array<f32>;
@group(0) @binding(2) var<storage, read_write> c_line: array<f32>;

const HEADER = 2u;
const RECORD = 10u;

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
    let rows = table[at + 1u];
    let len = rows * table[at + 2u];
    let element = (id - table[at]) * 64u + local;
    if element >= len {
        return;
    }
    let row = element % rows;
    let column = element / rows;
    let symmetric = table[at + 7u] != 0u;
    if symmetric && row < column {
        return;
    }
    var sum = 0.0;
    for (var part = 0u; part < table[at + 8u]; part++) {
        sum += scratch[table[at + 9u] + part * len + element];
    }
    let place = table[at + 3u] + row + column * table[at + 4u];
    let value = number(at + 5u) * sum + scaled(number(at + 6u), c_line[place]);
    c_line[place] = value;
    if symmetric && row > column {
        c_line[table[at + 3u] + column + row * table[at + 4u]] = value;
    }
}
