// One sweep of rotations of every pair of blocks, see eigen_block.wgsl: the pair's matrix becomes Pᵀ·A·P, P goes to scratch.
//
// One workgroup per pair. A rotation is applied as x ← x − s·(y + τ·x), y ← y + s·(x − τ·y) with τ = s/(1 + c), which
// loses nothing where the angle is small (Rutishauser 1966). A thread turns two rows and two columns where they cross.

@group(0) @binding(1) var<storage, read_write> line: array<f32>;
@group(0) @binding(2) var<storage, read_write> scratch: array<f32>;

const THREADS = 256u;

// Column-major.
var<workgroup> matrix: array<f32, 1024>;
var<workgroup> product: array<f32, 1024>;
var<workgroup> sines: array<f32, WIDTH>;
var<workgroup> taus: array<f32, WIDTH>;
var<workgroup> work: atomic<u32>;
var<workgroup> is_work: u32;

fn rotated(x: f32, y: f32, s: f32, tau: f32) -> vec2<f32> {
    return vec2<f32>(x - s * (y + tau * x), y + s * (x - tau * y));
}

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
    let pair = id - table[at];
    let n = table[at + 1u];
    let a = table[at + 2u];
    let step = table[at + 3u];
    let least = scratch[level_of(at)];
    if local == 0u {
        atomicStore(&work, 0u);
    }
    workgroupBarrier();
    for (var element = local; element < SIDE * SIDE; element += THREADS) {
        let row = row_of(at, pair, element % SIDE);
        let column = row_of(at, pair, element / SIDE);
        var value = 0.0;
        if row < n && column < n {
            value = line[a + row + column * step];
            if least >= 0.0 && row != column && abs(value) > least {
                atomicStore(&work, 1u);
            }
        }
        matrix[element] = value;
        product[element] = select(0.0, 1.0, element % SIDE == element / SIDE);
    }
    workgroupBarrier();
    if local == 0u {
        is_work = atomicLoad(&work);
        scratch[turned_of(at, pair)] = f32(is_work);
    }
    workgroupBarrier();
    if workgroupUniformLoad(&is_work) == 0u {
        return;
    }
    let one = local % WIDTH;
    let other = local / WIDTH;
    for (var round = 0u; round + 1u < SIDE; round++) {
        let p = player(one, round, SIDE);
        let q = player(SIDE - 1u - one, round, SIDE);
        if other == 0u {
            var s = 0.0;
            var tau = 0.0;
            let off = matrix[q + p * SIDE];
            if abs(off) > least {
                let theta = (matrix[q + q * SIDE] - matrix[p + p * SIDE]) / (2.0 * off);
                // θ² may be too large for a number.
                var t = 1.0 / (abs(theta) + sqrt(theta * theta + 1.0));
                if abs(theta) > 1.0e15 {
                    t = 0.5 / abs(theta);
                }
                t = select(t, -t, theta < 0.0);
                let c = 1.0 / sqrt(t * t + 1.0);
                s = t * c;
                tau = s / (1.0 + c);
            }
            sines[one] = s;
            taus[one] = tau;
        }
        workgroupBarrier();
        let u = player(other, round, SIDE);
        let v = player(SIDE - 1u - other, round, SIDE);
        let s = sines[one];
        let tau = taus[one];
        let s_across = sines[other];
        let tau_across = taus[other];
        // Rows p and q, then columns u and v.
        let left = rotated(matrix[p + u * SIDE], matrix[q + u * SIDE], s, tau);
        let right = rotated(matrix[p + v * SIDE], matrix[q + v * SIDE], s, tau);
        var upper = rotated(left.x, right.x, s_across, tau_across);
        var lower = rotated(left.y, right.y, s_across, tau_across);
        if one == other && s != 0.0 {
            // What the rotation is for is exactly 0, not what rounding leaves of it.
            upper.y = 0.0;
            lower.x = 0.0;
        }
        matrix[p + u * SIDE] = upper.x;
        matrix[p + v * SIDE] = upper.y;
        matrix[q + u * SIDE] = lower.x;
        matrix[q + v * SIDE] = lower.y;
        for (var row = one; row < SIDE; row += WIDTH) {
            let both = rotated(product[row + u * SIDE], product[row + v * SIDE], s_across, tau_across);
            product[row + u * SIDE] = both.x;
            product[row + v * SIDE] = both.y;
        }
        workgroupBarrier();
    }
    for (var element = local; element < SIDE * SIDE; element += THREADS) {
        scratch[product_of(at, pair) + element] = product[element];
        // Both triangles alike, to the bit.
        let down = max(element % SIDE, element / SIDE);
        let across = min(element % SIDE, element / SIDE);
        let row = row_of(at, pair, element % SIDE);
        let column = row_of(at, pair, element / SIDE);
        if row < n && column < n {
            line[a + row + column * step] = matrix[down + across * SIDE];
        }
    }
}
