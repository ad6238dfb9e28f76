// What is nothing beside the elements of a matrix: ε/n of the largest; −1 where one is a NaN or an infinity. See
// eigen_block.wgsl.
//
// One workgroup per matrix.

@group(0) @binding(1) var<storage, read_write> scratch: array<f32>;

const THREADS = 256u;

var<workgroup> partial: array<f32, THREADS>;

@compute @workgroup_size(256)
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
    var largest = 0.0;
    for (var column = local; column < n; column += THREADS) {
        let value = scratch[maxima_of(at) + column];
        largest = select(max(largest, value), -1.0, largest < 0.0 || value < 0.0);
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
        scratch[level_of(at)] = select(partial[0] * 1.1920929e-7 / f32(n), -1.0, partial[0] < 0.0);
    }
}
