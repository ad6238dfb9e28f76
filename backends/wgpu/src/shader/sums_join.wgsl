// gradient[kind, channel] ← Σ over the chunks, in ascending order, of scratch[chunk, channel, kind].
//
// Table: channels, kinds, chunks, offset in scratch, offset of the gradient.

@group(0) @binding(1) var<storage, read> scratch: array<f32>;
@group(0) @binding(2) var<storage, read_write> gradient: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) thread: vec3<u32>) {
    let len = table[0] * table[1];
    if thread.x >= len {
        return;
    }
    var sum = 0.0;
    for (var chunk = 0u; chunk < table[2]; chunk++) {
        sum += scratch[table[3] + chunk * len + thread.x];
    }
    let channel = thread.x / table[1];
    let kind = thread.x % table[1];
    gradient[table[4] + kind * table[0] + channel] = sum;
}
