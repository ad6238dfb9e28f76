// out ← α·Σ x⊙y + β·out for every job, without y: α·Σ x + β·out.
//
// A workgroup computes 256 / lanes sums, each with so many threads: a thread adds up every lanes-th term, then a tree
// adds up the threads. The order depends on shapes alone.
//
// Table: workgroups, jobs, 1 if there is y; then per job: its first workgroup, lanes, sums, rows of out, terms, rows
// summed over, offset, row step and column step of x, y and out, α, β.

@group(0) @binding(1) var<storage, read> x_line: array<f32>;
@group(0) @binding(2) var<storage, read> y_line: array<f32>;
@group(0) @binding(3) var<storage, read_write> out_line: array<f32>;

const HEADER = 3u;
const RECORD = 17u;
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
    var at = HEADER;
    for (var job = 1u; job < table[1] && table[at + RECORD] <= id; job++) {
        at += RECORD;
    }
    let lanes = table[at + 1u];
    let across = THREADS / lanes;
    let sum_number = (id - table[at]) * across + local % across;
    let lane = local / across;
    let row = sum_number % table[at + 3u];
    let column = sum_number / table[at + 3u];
    let rows = table[at + 5u];
    var sum = 0.0;
    if sum_number < table[at + 2u] {
        let x_place = table[at + 6u] + row * table[at + 7u] + column * table[at + 8u];
        let y_place = table[at + 9u] + row * table[at + 10u] + column * table[at + 11u];
        for (var term = lane; term < table[at + 4u]; term += lanes) {
            let r = term % rows;
            let c = term / rows;
            var value = x_line[x_place + r * table[at + 7u] + c * table[at + 8u]];
            if table[2] != 0u {
                value *= y_line[y_place + r * table[at + 10u] + c * table[at + 11u]];
            }
            sum += value;
        }
    }
    partial[local] = sum;
    workgroupBarrier();
    for (var half = lanes / 2u; half > 0u; half /= 2u) {
        if lane < half {
            partial[local] += partial[local + half * across];
        }
        workgroupBarrier();
    }
    if lane == 0u && sum_number < table[at + 2u] {
        let place = table[at + 12u] + row * table[at + 13u] + column * table[at + 14u];
        out_line[place] = number(at + 15u) * partial[local] + scaled(number(at + 16u), out_line[place]);
    }
}
