// y ← (x − mean)·scale·γ + β, with scale saved by the forward pass or, in evaluation, 1/√(var + ε).
//
// Table: elements, channels, offset of [γ; β], offset of the statistics, 1 in evaluation, ε.

@group(0) @binding(1) var<storage, read> parameters: array<f32>;
@group(0) @binding(2) var<storage, read> statistics: array<f32>;
@group(0) @binding(3) var<storage, read> x: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

fn one(element: u32) {
    let channels = table[1];
    let channel = element % channels;
    let away = x[element] - statistics[table[3] + channel];
    let scale = statistics[table[3] + channels + channel];
    var normal = away * scale;
    if table[4] != 0u {
        normal = away / sqrt(scale + number(5u));
    }
    y[element] = normal * parameters[table[2] + channel] + parameters[table[2] + channels + channel];
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let first = (group.x + group.y * grid.x) * 256u + local;
    for (var element = first; element < min(table[0], first + 256u); element += 64u) {
        one(element);
    }
}
