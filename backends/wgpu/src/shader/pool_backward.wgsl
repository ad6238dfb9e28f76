// dx ← Σ of what the windows that see the pixel send back: of a maximum all of dy to the first of equals (a later NaN
// wins), of a mean its share to every pixel.
//
// Table: first and end of the elements, what to add to places in x, dy and dx, 1 for the mean, then the geometry.

@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> dy: array<f32>;
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;

const G = 6u;

// Where in x the window's maximum lies.
fn winner(sample: u32, down: u32, across: u32, channel: u32) -> u32 {
    var best = 0u;
    var largest = 0.0;
    var found = false;
    for (var p = 0u; p < table[G + 6u]; p++) {
        for (var q = 0u; q < table[G + 7u]; q++) {
            let i = down * table[G + 8u] + p - table[G + 10u];
            let j = across * table[G + 9u] + q - table[G + 11u];
            if i < table[G + 1u] && j < table[G + 2u] {
                let place = ((sample * table[G + 1u] + i) * table[G + 2u] + j) * table[G] + channel;
                let value = x[place + table[2]];
                if !found || is_nan(value) || value > largest {
                    largest = value;
                    best = place;
                    found = true;
                }
            }
        }
    }
    return best;
}

fn one(element: u32) {
    let channels = table[G];
    let channel = element % channels;
    let pixel = element / channels;
    let j = pixel % table[G + 2u];
    let i = (pixel / table[G + 2u]) % table[G + 1u];
    let sample = pixel / (table[G + 1u] * table[G + 2u]);
    let share = 1.0 / f32(table[G + 6u] * table[G + 7u]);
    var sum = 0.0;
    // Windows in ascending order: the last kernel row sees the pixel first.
    for (var turn = 0u; turn < table[G + 6u]; turn++) {
        let p = table[G + 6u] - 1u - turn;
        let reach = i + table[G + 10u];
        let down = (reach - p) / table[G + 8u];
        if reach < p || (reach - p) % table[G + 8u] != 0u || down >= table[G + 4u] {
            continue;
        }
        for (var other = 0u; other < table[G + 7u]; other++) {
            let q = table[G + 7u] - 1u - other;
            let width = j + table[G + 11u];
            let across = (width - q) / table[G + 9u];
            if width < q || (width - q) % table[G + 9u] != 0u || across >= table[G + 5u] {
                continue;
            }
            let gradient = dy[((sample * table[G + 4u] + down) * table[G + 5u] + across) * channels + channel + table[3]];
            if table[5] != 0u {
                sum += gradient * share;
            } else if winner(sample, down, across, channel) == element {
                sum += gradient;
            }
        }
    }
    dx[element + table[4]] = sum;
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
