// What the shaders of products share: the table of jobs, operands and where sums go.
//
//     c ← α·a·b + β·c
//
// Of a symmetric job one triangle is computed and written twice. A job may be cut into parts along the sum, which go to
// scratch. In every shader an element sums its terms one after the other in ascending order, so that the choice of the
// shader changes no bit.
//
// OfA and OfB are the numbers that a and b are made of: f32, or f16.
//
// Table: workgroups, jobs; then per job: its first workgroup, tiles downwards, m, n, k, offset, row step and column step
// of a and b, offset and column step of c, α, β, 1 if symmetric, parts, terms of a part, offset in scratch, 0.

@group(0) @binding(1) var<storage, read> a_line: array<OfA>;
@group(0) @binding(2) var<storage, read> b_line: array<OfB>;
@group(0) @binding(3) var<storage, read_write> c_line: array<f32>;
@group(0) @binding(4) var<storage, read_write> scratch: array<f32>;

const HEADER = 2u;
const RECORD = 20u;

// Four neighbours of one term, zeros outside.
fn four_of_a(at: u32, term: u32, row: u32, rows: u32, terms: u32) -> vec4<f32> {
    var value = vec4<f32>();
    if term < terms {
        let step = table[at + 6u];
        let place = table[at + 5u] + row * step + term * table[at + 7u];
        if row < rows { value.x = f32(a_line[place]); }
        if row + 1u < rows { value.y = f32(a_line[place + step]); }
        if row + 2u < rows { value.z = f32(a_line[place + 2u * step]); }
        if row + 3u < rows { value.w = f32(a_line[place + 3u * step]); }
    }
    return value;
}

fn four_of_b(at: u32, term: u32, column: u32, columns: u32, terms: u32) -> vec4<f32> {
    var value = vec4<f32>();
    if term < terms {
        let step = table[at + 10u];
        let place = table[at + 8u] + term * table[at + 9u] + column * step;
        if column < columns { value.x = f32(b_line[place]); }
        if column + 1u < columns { value.y = f32(b_line[place + step]); }
        if column + 2u < columns { value.z = f32(b_line[place + 2u * step]); }
        if column + 3u < columns { value.w = f32(b_line[place + 3u * step]); }
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

// What a workgroup computes.
struct Tile {
    // The job's place in the table.
    at: u32,
    part: u32,
    // In tiles.
    row: u32,
    column: u32,
    // Terms of the sum.
    first: u32,
    end: u32,
}

fn tile_of(id: u32) -> Tile {
    var tile: Tile;
    tile.at = HEADER;
    for (var job = 1u; job < table[1] && table[tile.at + RECORD] <= id; job++) {
        tile.at += RECORD;
    }
    let parts = table[tile.at + 16u];
    tile.part = (id - table[tile.at]) % parts;
    let number_ = (id - table[tile.at]) / parts;
    tile.row = number_ % table[tile.at + 1u];
    tile.column = number_ / table[tile.at + 1u];
    if table[tile.at + 15u] != 0u {
        // The lower triangle, row by row.
        tile.row = 0u;
        tile.column = number_;
        while tile.column > tile.row {
            tile.row += 1u;
            tile.column -= tile.row;
        }
    }
    tile.first = tile.part * table[tile.at + 17u];
    tile.end = min(tile.first + table[tile.at + 17u], table[tile.at + 4u]);
    return tile;
}
