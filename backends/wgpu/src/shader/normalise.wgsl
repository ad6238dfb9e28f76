// y ← (x − mean)·scale·γ + β, with scale saved by the forward pass or, in evaluation, 1/√(var + ε).
//
// Table: first and end of the elements, what to add to places in parameters, statistics, x and y, channels, offset of [γ; β], offset of the statistics, 1 in evaluation, ε.

@group(0) @binding(1) var<storage, read> parameters: array<f32>;
@group(0) @binding(2) var<storage, read> statistics: array<f32>;
@group(0) @binding(3) var<storage, read> x: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

fn one(element: u32) {
    let channels = table[6];
    let channel = element % channels;
    let away = x[element + table[4]] - statistics[table[8] + channel + table[3]];
    let scale = statistics[table[8] + channels + channel + table[3]];
    var normal = away * scale;
    if table[9] != 0u {
        normal = away / sqrt(scale + number(10u));
    }
    y[element + table[5]] = normal * parameters[table[7] + channel + table[2]] + parameters[table[7] + channels + channel + table[2]];
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let first = table[0] + (group.x + group.y * grid.x) * 256u + local;
    for (var element = first; element < min(table[1], first + 256u); element += 64u) {
        one(element);
    }
}
