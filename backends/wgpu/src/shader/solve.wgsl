// x ← (L·Lᵀ)⁻¹·x for every job, by substitution: one thread per column, L·y = x downwards in steps 0 to n, then Lᵀ·x = y
// upwards in steps n to 2n. A launch makes all of them, or one half where L is a block of a larger factor.
//
// Table: workgroups, jobs; then per job: its first workgroup, n, columns, offset and column step of L, of x, first step,
// end of the steps.

@group(0) @binding(1) var<storage, read> factor: array<f32>;
@group(0) @binding(2) var<storage, read_write> line: array<f32>;

const HEADER = 2u;
const RECORD = 9u;

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
    for (var turn = table[at + 7u]; turn < table[at + 8u]; turn++) {
        let is_down = turn < n;
        let row = select(2u * n - 1u - turn, turn, is_down);
        // L[row, k] downwards, L[k, row] upwards, for what is known by now.
        let place = select(l + row * step, l + row, is_down);
        let next = select(1u, step, is_down);
        let end = select(n, row, is_down);
        var k = select(row + 1u, 0u, is_down);
        var rest = line[x + row];
        while k + 8u <= end {
            rest -= factor[place + k * next] * line[x + k];
            rest -= factor[place + (k + 1u) * next] * line[x + k + 1u];
            rest -= factor[place + (k + 2u) * next] * line[x + k + 2u];
            rest -= factor[place + (k + 3u) * next] * line[x + k + 3u];
            rest -= factor[place + (k + 4u) * next] * line[x + k + 4u];
            rest -= factor[place + (k + 5u) * next] * line[x + k + 5u];
            rest -= factor[place + (k + 6u) * next] * line[x + k + 6u];
            rest -= factor[place + (k + 7u) * next] * line[x + k + 7u];
            k += 8u;
        }
        while k < end {
            rest -= factor[place + k * next] * line[x + k];
            k += 1u;
        }
        line[x + row] = rest / factor[l + row + row * step];
    }
}
