// The beginning of large eigenproblems, see eigen_block.wgsl: the lower triangle decides and is mirrored, Q ← 1, and the
// largest element of every column below the diagonal is found, −1 where there is a NaN or an infinity.
//
// One workgroup per column.

@group(0) @binding(1) var<storage, read_write> line: array<f32>;
@group(0) @binding(2) var<storage, read_write> scratch: array<f32>;

const THREADS = 64u;

var<workgroup> partial: array<f32, THREADS>;

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
    let column = id - table[at];
    let n = table[at + 1u];
    let a = table[at + 2u];
    let step = table[at + 3u];
    var largest = 0.0;
    for (var row = local; row < n; row += THREADS) {
        if row >= column {
            let value = line[a + row + column * step];
            line[a + column + row * step] = value;
            if largest >= 0.0 {
                largest = max(largest, abs(value));
            }
            if !is_finite(value) {
                largest = -1.0;
            }
        }
        scratch[table[at + 5u] + row + column * n] = select(0.0, 1.0, row == column);
    }
    partial[local] = largest;
    workgroupBarrier();
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        if local < half {
            let one = partial[local];
            let other = partial[local + half];
            partial[local] = select(max(one, other), -1.0, one < 0.0 || other < 0.0);
        }
        workgroupBarrier();
    }
    if local == 0u {
        scratch[maxima_of(at) + column] = partial[0];
    }
}
