// X ← X·L⁻ᵀ for every job: the rows below a factorised block of a matrix become those of its Cholesky factor.
//
//     x[row, j] = (a[row, j] − Σ_{k<j} x[row, k]·L[j, k]) / L[j, j]
//
// One thread per row, 64 rows per workgroup, in strips of WIDTH columns; blocks of L are in workgroup memory.
//
// Table: workgroups, jobs; then per job: its first workgroup, rows of X, columns, offset of L, of X, column step of both.

@group(0) @binding(1) var<storage, read_write> line: array<f32>;

const HEADER = 2u;
const RECORD = 6u;
const THREADS = 64u;
const WIDTH = 16u;

// L[strip, term..term + WIDTH], column-major.
var<workgroup> block: array<f32, 256>;

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
    let row = (id - table[at]) * THREADS + local;
    let is_row = row < table[at + 1u];
    let columns = table[at + 2u];
    let l = table[at + 3u];
    let step = table[at + 5u];
    let x = table[at + 4u] + row;
    for (var strip = 0u; strip < columns; strip += WIDTH) {
        let width = min(WIDTH, columns - strip);
        var rest = array<f32, WIDTH>();
        if is_row {
            for (var j = 0u; j < width; j++) {
                rest[j] = line[x + (strip + j) * step];
            }
        }
        for (var term = 0u; term <= strip; term += WIDTH) {
            for (var element = local; element < WIDTH * WIDTH; element += THREADS) {
                let down = strip + element % WIDTH;
                let across = term + element / WIDTH;
                var value = 0.0;
                if down < columns && across <= down {
                    value = line[l + down + across * step];
                }
                block[element] = value;
            }
            workgroupBarrier();
            if is_row && term < strip {
                for (var k = 0u; k < WIDTH; k++) {
                    let known = line[x + (term + k) * step];
                    for (var j = 0u; j < WIDTH; j++) {
                        rest[j] -= known * block[j + k * WIDTH];
                    }
                }
            }
            if is_row && term == strip {
                for (var j = 0u; j < width; j++) {
                    for (var k = 0u; k < j; k++) {
                        rest[j] -= rest[k] * block[j + k * WIDTH];
                    }
                    rest[j] /= block[j + j * WIDTH];
                    line[x + (strip + j) * step] = rest[j];
                }
            }
            workgroupBarrier();
        }
    }
}
