// c ← α·a·b + β·c for every job; of a symmetric job one triangle is computed and written twice.
//
// A workgroup of SIDE × SIDE threads computes a tile of 4·SIDE rows and columns, each thread 4 × 4 elements in
// registers, from strips of a and b of DEPTH terms in workgroup memory: per strip a thread reads 2·DEPTH·4/SIDE global
// numbers for 2·16·DEPTH operations. Every element sums its terms one after the other in ascending order, so that the
// size of the tiles changes no bit. A job may be cut into parts along the sum, which go to scratch.
//
// Table: workgroups, jobs; then per job: its first workgroup, tiles downwards, m, n, k, offset, row step and column step
// of a and b, offset and column step of c, α, β, 1 if symmetric, parts, terms of a part, offset in scratch, 0.

@group(0) @binding(1) var<storage, read> a_line: array<f32>;
@group(0) @binding(2) var<storage, read> b_line: array<f32>;
@group(0) @binding(3) var<storage, read_write> c_line: array<f32>;
@group(0) @binding(4) var<storage, read_write> scratch: array<f32>;

const HEADER = 2u;
const RECORD = 20u;
const TILE = 4u * SIDE;
const THREADS = SIDE * SIDE;
const DEPTH = 16u;
const STRIP = DEPTH * SIDE;

// Element (term, row of a) at term · SIDE + row / 4; of b likewise with columns.
var<workgroup> left: array<vec4<f32>, STRIP>;
var<workgroup> right: array<vec4<f32>, STRIP>;

// Four neighbours of one term, zeros outside.
fn four_of_a(at: u32, term: u32, row: u32, rows: u32, terms: u32) -> vec4<f32> {
    var value = vec4<f32>();
    if term < terms {
        let step = table[at + 6u];
        let place = table[at + 5u] + row * step + term * table[at + 7u];
        if row < rows { value.x = a_line[place]; }
        if row + 1u < rows { value.y = a_line[place + step]; }
        if row + 2u < rows { value.z = a_line[place + 2u * step]; }
        if row + 3u < rows { value.w = a_line[place + 3u * step]; }
    }
    return value;
}

fn four_of_b(at: u32, term: u32, column: u32, columns: u32, terms: u32) -> vec4<f32> {
    var value = vec4<f32>();
    if term < terms {
        let step = table[at + 10u];
        let place = table[at + 8u] + term * table[at + 9u] + column * step;
        if column < columns { value.x = b_line[place]; }
        if column + 1u < columns { value.y = b_line[place + step]; }
        if column + 2u < columns { value.z = b_line[place + 2u * step]; }
        if column + 3u < columns { value.w = b_line[place + 3u * step]; }
    }
    return value;
}

fn store(at: u32, part: u32, row: u32, column: u32, sum: f32) {
    let rows = table[at + 2u];
    if row >= rows || column >= table[at + 3u] {
        return;
    }
    if table[at + 16u] > 1u {
        scratch[table[at + 18u] + part * rows * table[at + 3u] + row + column * rows] = sum;
        return;
    }
    let symmetric = table[at + 15u] != 0u;
    if symmetric && row < column {
        return;
    }
    let place = table[at + 11u] + row + column * table[at + 12u];
    let value = number(at + 13u) * sum + scaled(number(at + 14u), c_line[place]);
    c_line[place] = value;
    if symmetric && row > column {
        c_line[table[at + 11u] + column + row * table[at + 12u]] = value;
    }
}

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
    var at = HEADER;
    for (var job = 1u; job < table[1] && table[at + RECORD] <= id; job++) {
        at += RECORD;
    }
    let parts = table[at + 16u];
    let part = (id - table[at]) % parts;
    let tile = (id - table[at]) / parts;
    var tile_row = tile % table[at + 1u];
    var tile_column = tile / table[at + 1u];
    if table[at + 15u] != 0u {
        // The lower triangle, row by row.
        tile_row = 0u;
        tile_column = tile;
        while tile_column > tile_row {
            tile_row += 1u;
            tile_column -= tile_row;
        }
    }
    let rows = table[at + 2u];
    let columns = table[at + 3u];
    let first = part * table[at + 17u];
    let terms = min(first + table[at + 17u], table[at + 4u]);
    let row = tile_row * TILE;
    let column = tile_column * TILE;
    // Neighbouring threads read neighbouring numbers, whichever step is 1.
    let a_down = table[at + 6u] == 1u;
    let b_across = table[at + 10u] == 1u;
    var sum0 = vec4<f32>();
    var sum1 = vec4<f32>();
    var sum2 = vec4<f32>();
    var sum3 = vec4<f32>();
    for (var start = first; start < terms; start += DEPTH) {
        for (var unit = local; unit < STRIP; unit += THREADS) {
            var term = unit % DEPTH;
            var four = unit / DEPTH;
            if a_down {
                term = unit / SIDE;
                four = unit % SIDE;
            }
            left[term * SIDE + four] = four_of_a(at, start + term, row + 4u * four, rows, terms);
            term = unit % DEPTH;
            four = unit / DEPTH;
            if b_across {
                term = unit / SIDE;
                four = unit % SIDE;
            }
            right[term * SIDE + four] = four_of_b(at, start + term, column + 4u * four, columns, terms);
        }
        workgroupBarrier();
        for (var term = 0u; term < DEPTH; term++) {
            let of_a = left[term * SIDE + thread.x];
            let of_b = right[term * SIDE + thread.y];
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
            store(at, part, down + i, across + j, sum[i]);
        }
    }
}
