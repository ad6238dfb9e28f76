// dx ← γ·scale·(dy − mean(dy) − normal·mean(dy·normal)), the means being the gradients of β and γ by the columns.
//
// Table: elements, channels, columns, offset of [γ; β], offset of their gradients.

@group(0) @binding(1) var<storage, read> parameters: array<f32>;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read> saved: array<f32>;
@group(0) @binding(4) var<storage, read> dy: array<f32>;
@group(0) @binding(5) var<storage, read> gradient: array<f32>;
@group(0) @binding(6) var<storage, read_write> dx: array<f32>;

fn one(element: u32) {
    let channels = table[1];
    let channel = element % channels;
    let columns = f32(table[2]);
    let slope = gradient[table[4] + channel] / columns;
    let level = gradient[table[4] + channels + channel] / columns;
    let scale = saved[channels + channel];
    let normal = (x[element] - saved[channel]) * scale;
    dx[element] = parameters[table[3] + channel] * scale * (dy[element] - level - normal * slope);
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
