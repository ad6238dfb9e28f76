// A product in tiles, see product_job.wgsl.
//
// A workgroup of SIDE × SIDE threads computes a tile of 4·SIDE rows and columns, each thread 4 × 4 elements in
// registers, from strips of a and b of DEPTH terms in workgroup memory: per strip a thread reads 2·DEPTH·4/SIDE global
// numbers for 2·16·DEPTH operations.

const TILE = 4u * SIDE;
const THREADS = SIDE * SIDE;
const STRIP = DEPTH * SIDE;

// Four is four numbers as they are kept: in half precision, sums are in full precision nevertheless.
//
// Element (term, row of a) at term · SIDE + row / 4; of b likewise with columns.
var<workgroup> left: array<Four, STRIP>;
var<workgroup> right: array<Four, STRIP>;

@compute @workgroup_size(SIDE, SIDE)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_id) thread: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let id = group.x + group.y * grid.x;
    if id >= table[0] {
        return;
    }
    let tile = tile_of(id);
    let at = tile.at;
    let rows = table[at + 2u];
    let columns = table[at + 3u];
    let row = tile.row * TILE;
    let column = tile.column * TILE;
    // Neighbouring threads read neighbouring numbers, whichever step is 1.
    let a_down = table[at + 6u] == 1u;
    let b_across = table[at + 10u] == 1u;
    var sum0 = vec4<f32>();
    var sum1 = vec4<f32>();
    var sum2 = vec4<f32>();
    var sum3 = vec4<f32>();
    for (var start = tile.first; start < tile.end; start += DEPTH) {
        for (var unit = local; unit < STRIP; unit += THREADS) {
            var term = unit % DEPTH;
            var four = unit / DEPTH;
            if a_down {
                term = unit / SIDE;
                four = unit % SIDE;
            }
            left[term * SIDE + four] = Four(four_of_a(at, start + term, row + 4u * four, rows, tile.end));
            term = unit % DEPTH;
            four = unit / DEPTH;
            if b_across {
                term = unit / SIDE;
                four = unit % SIDE;
            }
            right[term * SIDE + four] = Four(four_of_b(at, start + term, column + 4u * four, columns, tile.end));
        }
        workgroupBarrier();
        for (var term = 0u; term < DEPTH; term++) {
            let of_a = vec4<f32>(left[term * SIDE + thread.x]);
            let of_b = vec4<f32>(right[term * SIDE + thread.y]);
            sum0 += of_a * of_b.x;
            sum1 += of_a * of_b.y;
            sum2 += of_a * of_b.z;
            sum3 += of_a * of_b.w;
        }
        workgroupBarrier();
    }
    // Column by column: the first of four sums is that of the first column.
    let down = row + 4u * thread.x;
    let across = column + 4u * thread.y;
    for (var j = 0u; j < 4u; j++) {
        var sum = sum0;
        if j == 1u { sum = sum1; }
        if j == 2u { sum = sum2; }
        if j == 3u { sum = sum3; }
        for (var i = 0u; i < 4u; i++) {
            store(at, tile.part, down + i, across + j, sum[i]);
        }
    }
}
