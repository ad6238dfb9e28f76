// L·Lᵀ = A for every job, in place, reading and writing the lower triangle; sound[job] ← 1, or 0 where a pivot is not a
// positive number.
//
// One workgroup per matrix, in strips of WIDTH columns, looking left: a strip is brought up to date with all finished
// columns, WIDTH terms at a time in workgroup memory, then factorised. Of a matrix that is a block of a larger one, what
// came before has its say in the soundness.
//
// Table: workgroups, 0; then per job: where its soundness goes, n, offset, column step, 1 if something came before.

@group(0) @binding(1) var<storage, read_write> line: array<f32>;
@group(0) @binding(2) var<storage, read_write> sound: array<u32>;

const HEADER = 2u;
const RECORD = 5u;
const THREADS = 256u;
const WIDTH = 16u;

// Rows `column..column + WIDTH` of one finished column at a time, then the diagonal block, column-major.
var<workgroup> block: array<f32, 256>;
var<workgroup> failed: u32;

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
    let at = HEADER + id * RECORD;
    let n = table[at + 1u];
    let offset = table[at + 2u];
    let step = table[at + 3u];
    if local == 0u {
        failed = 0u;
        if table[at + 4u] != 0u {
            failed = 1u - sound[table[at]];
        }
    }
    if workgroupUniformLoad(&failed) != 0u {
        return;
    }
    for (var column = 0u; column < n; column += WIDTH) {
        let width = min(WIDTH, n - column);
        // A[column.., strip] −= L[column.., ..column] · L[strip, ..column]ᵀ, WIDTH terms at a time.
        for (var term = 0u; term < column; term += WIDTH) {
            let source_row = column + local % WIDTH;
            let source_column = term + local / WIDTH;
            var value = 0.0;
            if source_row < n {
                value = line[offset + source_row + source_column * step];
            }
            block[local] = value;
            workgroupBarrier();
            for (var row = column + local; row < n; row += THREADS) {
                var sum = array<f32, WIDTH>();
                for (var k = 0u; k < WIDTH; k++) {
                    let factor = line[offset + row + (term + k) * step];
                    for (var j = 0u; j < WIDTH; j++) {
                        sum[j] += factor * block[j + k * WIDTH];
                    }
                }
                for (var j = 0u; j < width; j++) {
                    if row >= column + j {
                        line[offset + row + (column + j) * step] -= sum[j];
                    }
                }
            }
            workgroupBarrier();
        }
        storageBarrier();
        workgroupBarrier();
        // The diagonal block, by every column in turn.
        {
            let row = local % WIDTH;
            let j = local / WIDTH;
            var value = 0.0;
            if row < width && j < width && row >= j {
                value = line[offset + column + row + (column + j) * step];
            }
            block[local] = value;
        }
        workgroupBarrier();
        for (var j = 0u; j < width; j++) {
            let pivot = block[j + j * WIDTH];
            let root = sqrt(pivot);
            let is_sound = !is_nan(pivot) && pivot > 0.0 && is_finite(pivot);
            workgroupBarrier();
            if local == 0u {
                if !is_sound {
                    failed = 1u;
                }
                block[j + j * WIDTH] = root;
            }
            if local > j && local < WIDTH {
                block[local + j * WIDTH] /= root;
            }
            workgroupBarrier();
            let row = local % WIDTH;
            let other = local / WIDTH;
            if other > j && row >= other {
                block[local] -= block[row + j * WIDTH] * block[other + j * WIDTH];
            }
            workgroupBarrier();
        }
        if workgroupUniformLoad(&failed) != 0u {
            break;
        }
        {
            let row = local % WIDTH;
            let j = local / WIDTH;
            if row < width && j < width && row >= j {
                line[offset + column + row + (column + j) * step] = block[local];
            }
        }
        // The rows below: L[row, strip]·L[strip, strip]ᵀ = A[row, strip].
        for (var row = column + width + local; row < n; row += THREADS) {
            var x = array<f32, WIDTH>();
            for (var j = 0u; j < width; j++) {
                var rest = line[offset + row + (column + j) * step];
                for (var k = 0u; k < j; k++) {
                    rest -= x[k] * block[j + k * WIDTH];
                }
                x[j] = rest / block[j + j * WIDTH];
                line[offset + row + (column + j) * step] = x[j];
            }
        }
        storageBarrier();
        workgroupBarrier();
    }
    if local == 0u {
        sound[table[at]] = 1u - failed;
    }
}
