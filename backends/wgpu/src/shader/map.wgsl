// out ← op(x, y, out), element by element, for every job.
//
// Table: workgroups, jobs, operation, three parameters, 1 if there is x, 1 if there is y; then per job: its first
// workgroup, rows, columns, and offset, row step and column step of x, y and out.

@group(0) @binding(1) var<storage, read> x_line: array<f32>;
@group(0) @binding(2) var<storage, read> y_line: array<f32>;
@group(0) @binding(3) var<storage, read_write> out_line: array<f32>;

const HEADER = 8u;
const RECORD = 12u;
const THREADS = 64u;
const EACH = 8u;

// tanh x = x + x³·P(x²) near 0, where the quotient would cancel, else 1 − 2/(e²ˣ + 1).
fn hyperbolic_tangent(x: f32) -> f32 {
    if is_nan(x) {
        return x;
    }
    let size = min(abs(x), 10.0);
    let square = size * size;
    var value = 1.0 - 2.0 / (exponential(2.0 * size) + 1.0);
    if size < 0.3 {
        var p = 1382.0 / 155925.0;
        p = p * square - 62.0 / 2835.0;
        p = -p;
        p = 17.0 / 315.0 - square * p;
        p = p * square - 2.0 / 15.0;
        p = p * square + 1.0 / 3.0;
        value = size - size * square * p;
    }
    return select(value, -value, x < 0.0);
}

fn apply(op: u32, a: f32, b: f32, c: f32, x: f32, y: f32, z: f32) -> f32 {
    switch op {
        case 0u: { return a; }
        case 1u: { return a * x + scaled(b, z); }
        case 2u: { return a * x + b * y; }
        case 3u: { return a * x * y + scaled(b, z); }
        case 4u: { return x / y; }
        case 5u: { return 1.0 / x; }
        case 6u: { return sqrt(x); }
        case 7u: {
            let one = a * x;
            let other = b * y;
            if is_nan(one) { return other; }
            if is_nan(other) || one >= other { return one; }
            return other;
        }
        case 8u: {
            if is_nan(x) { return x; }
            return select(x, 0.0, x < 0.0);
        }
        case 9u: {
            // Selected by bits: a NaN in x where y > 0 passes, elsewhere not.
            if !is_nan(y) && y > 0.0 { return x; }
            return 0.0;
        }
        case 10u: { return hyperbolic_tangent(x); }
        case 11u: { return x * (1.0 - y * y); }
        case 12u: {
            let one = select(x, 0.0, is_nan(x) || x < 0.0);
            let other = select(y, 0.0, is_nan(y) || y < 0.0);
            return z / (one * other + a);
        }
        case 13u: { return z / (x + a); }
        case 14u: {
            let ratio = x / y;
            if is_nan(ratio) || ratio <= 0.0 || !is_finite(ratio) { return 1.0; }
            return sqrt(ratio);
        }
        case 15u: {
            if x == 0.0 { return 1.0; }
            if is_nan(x) { return 1.0; }
            return min(sqrt(a / abs(x)), 1.0);
        }
        case 16u: { return select(0.0, 1.0, is_finite(x)); }
        case 17u: {
            if y == 0.0 { return z; }
            return scaled(a, z) + (1.0 - a) * x;
        }
        case 18u: { return scaled(a, z) + (1.0 - a) * x * x; }
        case 19u: { return a * x / (sqrt(b * y) + c); }
        default: {
            if y == 0.0 { return z; }
            return x;
        }
    }
}

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
    let rows = table[at + 1u];
    let len = rows * table[at + 2u];
    let first = (id - table[at]) * (THREADS * EACH) + local;
    for (var turn = 0u; turn < EACH; turn++) {
        let element = first + turn * THREADS;
        if element >= len {
            return;
        }
        let row = element % rows;
        let column = element / rows;
        var x = 0.0;
        var y = 0.0;
        if table[6] != 0u {
            x = x_line[table[at + 3u] + row * table[at + 4u] + column * table[at + 5u]];
        }
        if table[7] != 0u {
            y = y_line[table[at + 6u] + row * table[at + 7u] + column * table[at + 8u]];
        }
        let place = table[at + 9u] + row * table[at + 10u] + column * table[at + 11u];
        out_line[place] = apply(table[2], number(3u), number(4u), number(5u), x, y, out_line[place]);
    }
}
