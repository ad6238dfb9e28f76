// What the rotations of pairs of blocks do to everything else, see eigen_block.wgsl: A[I, J] ← P_Iᵀ·A[I, J]·P_J for pairs
// I > J and its mirror image, Q[.., I] ← Q[.., I]·P_I.
//
// One workgroup per two pairs, then one per SIDE rows of Q and pair.

@group(0) @binding(1) var<storage, read_write> line: array<f32>;
@group(0) @binding(2) var<storage, read_write> scratch: array<f32>;

const THREADS = 256u;

// Column-major.
var<workgroup> block: array<f32, 1024>;
var<workgroup> left: array<f32, 1024>;
var<workgroup> right: array<f32, 1024>;

fn factor(at: u32, pair: u32, element: u32) -> f32 {
    // A pair that was not turned has written nothing.
    if scratch[turned_of(at, pair)] == 0.0 {
        return select(0.0, 1.0, element % SIDE == element / SIDE);
    }
    return scratch[product_of(at, pair) + element];
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
    let n = table[at + 1u];
    let pairs = pairs_of(n);
    var number_ = id - table[at];
    let is_matrix = number_ < pairs * (pairs - 1u) / 2u;
    // The pair of the rows, or which rows of Q; the pair of the columns.
    var down = 0u;
    var across = 0u;
    if is_matrix {
        // Below the diagonal, row by row.
        down = 1u;
        while number_ >= down {
            number_ -= down;
            down += 1u;
        }
        across = number_;
    } else {
        number_ -= pairs * (pairs - 1u) / 2u;
        down = number_ % pairs;
        across = number_ / pairs;
    }
    var is_turned = scratch[turned_of(at, across)] != 0.0;
    if is_matrix {
        is_turned = is_turned || scratch[turned_of(at, down)] != 0.0;
    }
    if !is_turned {
        return;
    }
    for (var element = local; element < SIDE * SIDE; element += THREADS) {
        let column = row_of(at, across, element / SIDE);
        var value = 0.0;
        if is_matrix {
            let row = row_of(at, down, element % SIDE);
            if row < n && column < n {
                value = line[table[at + 2u] + row + column * table[at + 3u]];
            }
            left[element] = factor(at, down, element);
        } else {
            let row = down * SIDE + element % SIDE;
            if row < n && column < n {
                value = scratch[table[at + 5u] + row + column * n];
            }
        }
        block[element] = value;
        right[element] = factor(at, across, element);
    }
    workgroupBarrier();
    // A thread has one row of four columns.
    let row = local % SIDE;
    let first = local / SIDE;
    var sum = vec4<f32>();
    for (var k = 0u; k < SIDE; k++) {
        let value = block[row + k * SIDE];
        let at_k = k + first * SIDE;
        sum += value * vec4<f32>(right[at_k], right[at_k + 8u * SIDE], right[at_k + 16u * SIDE], right[at_k + 24u * SIDE]);
    }
    if is_matrix {
        workgroupBarrier();
        for (var j = 0u; j < 4u; j++) {
            block[row + (first + 8u * j) * SIDE] = sum[j];
        }
        workgroupBarrier();
        sum = vec4<f32>();
        for (var k = 0u; k < SIDE; k++) {
            let value = left[k + row * SIDE];
            let at_k = k + first * SIDE;
            sum += value * vec4<f32>(block[at_k], block[at_k + 8u * SIDE], block[at_k + 16u * SIDE], block[at_k + 24u * SIDE]);
        }
    }
    for (var j = 0u; j < 4u; j++) {
        let column = row_of(at, across, first + 8u * j);
        if is_matrix {
            let target_ = row_of(at, down, row);
            if target_ < n && column < n {
                line[table[at + 2u] + target_ + column * table[at + 3u]] = sum[j];
                line[table[at + 2u] + column + target_ * table[at + 3u]] = sum[j];
            }
        } else {
            let target_ = down * SIDE + row;
            if target_ < n && column < n {
                scratch[table[at + 5u] + target_ + column * n] = sum[j];
            }
        }
    }
}
