// saved ← [mean; 1/√(var + ε)], running ← (1 − w)·running + w·[mean; unbiased var]: the moments of all chunks, joined in
// ascending order (Chan, Golub & LeVeque 1983).
//
// Table: channels, columns, columns of a chunk, chunks, ε, w, offset of the running statistics.

@group(0) @binding(1) var<storage, read> scratch: array<f32>;
@group(0) @binding(2) var<storage, read_write> saved: array<f32>;
@group(0) @binding(3) var<storage, read_write> running: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) thread: vec3<u32>) {
    let channel = thread.x;
    let channels = table[0];
    if channel >= channels {
        return;
    }
    var mean = scratch[2u * channel];
    var squares = scratch[2u * channel + 1u];
    var count = min(table[1], table[2]);
    for (var chunk = 1u; chunk < table[3]; chunk++) {
        let more = min(table[1] - count, table[2]);
        let away = scratch[2u * (chunk * channels + channel)] - mean;
        let all = f32(count + more);
        squares += scratch[2u * (chunk * channels + channel) + 1u] + away * away * (f32(count) * f32(more) / all);
        mean += away * (f32(more) / all);
        count += more;
    }
    let variance = squares / f32(count);
    saved[channel] = mean;
    saved[channels + channel] = 1.0 / sqrt(variance + number(4u));
    let weight = number(5u);
    let at = table[6] + channel;
    let unbiased = squares / f32(max(count, 2u) - 1u);
    running[at] = (1.0 - weight) * running[at] + weight * mean;
    running[at + channels] = (1.0 - weight) * running[at + channels] + weight * unbiased;
}
