// dx ← γ·scale·(dy − mean(dy) − normal·mean(dy·normal)), the means being the gradients of β and γ by the columns.
//
// Table: first and end of the elements, what to add to places in parameters, x, saved, dy, gradient and
// dx, channels, columns, offset of [γ; β], offset of their gradients.

@group(0) @binding(1) var<storage, read> parameters: array<f32>;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read> saved: array<f32>;
@group(0) @binding(4) var<storage, read> dy: array<f32>;
@group(0) @binding(5) var<storage, read> gradient: array<f32>;
@group(0) @binding(6) var<storage, read_write> dx: array<f32>;

fn one(element: u32) {
    let channels = table[8];
    let channel = element % channels;
    let columns = f32(table[9]);
    let slope = gradient[table[11] + channel + table[6]] / columns;
    let level = gradient[table[11] + channels + channel + table[6]] / columns;
    let scale = saved[channels + channel + table[4]];
    let normal = (x[element + table[3]] - saved[channel + table[4]]) * scale;
    dx[element + table[7]] = parameters[table[10] + channel + table[2]] * scale * (dy[element + table[5]] - level - normal * slope);
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
