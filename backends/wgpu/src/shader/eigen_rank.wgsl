// d ← the diagonal of A in ascending order, equals in the order they have, NaN where A had one; the place of every column
// goes to scratch. See eigen_block.wgsl.
//
// One thread per column, 64 columns per workgroup.

@group(0) @binding(1) var<storage, read> line: array<f32>;
@group(0) @binding(2) var<storage, read_write> values: array<f32>;
@group(0) @binding(3) var<storage, read_write> scratch: array<f32>;

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
    let column = (id - table[at]) * 64u + local;
    if column >= n {
        return;
    }
    let a = table[at + 2u];
    let next = table[at + 3u] + 1u;
    let is_spoilt = scratch[level_of(at)] < 0.0;
    let value = line[a + column * next];
    var place = 0u;
    for (var other = 0u; other < n; other++) {
        let rival = line[a + other * next];
        if rival < value || (rival == value && other < column) {
            place++;
        }
    }
    if is_spoilt {
        place = column;
    }
    // A NaN that no compiler computes beforehand, which the language forbids.
    values[table[at + 4u] + place] = select(value, bitcast<f32>(0x7fc00000u | (id & 1u)), is_spoilt);
    scratch[maxima_of(at) + column] = f32(place);
}
