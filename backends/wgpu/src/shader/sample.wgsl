// labels[sample] ← the first class whose cumulative probability under softmax(z) exceeds the uniform number given.
//
// Table: first and end of the samples, what to add to places in z, the uniform numbers and labels, classes.

@group(0) @binding(1) var<storage, read> z: array<f32>;
@group(0) @binding(2) var<storage, read> uniform_line: array<f32>;
@group(0) @binding(3) var<storage, read_write> labels: array<f32>;

fn one(sample: u32) {
    let classes = table[5];
    let first = sample * classes + table[2];
    var largest = z[first];
    for (var class_ = 1u; class_ < classes; class_++) {
        let value = z[first + class_];
        if value > largest || is_nan(largest) {
            largest = value;
        }
    }
    var sum = 0.0;
    for (var class_ = 0u; class_ < classes; class_++) {
        sum += exponential(z[first + class_] - largest);
    }
    var left = uniform_line[sample + table[3]] * sum;
    var label = classes - 1u;
    for (var class_ = 0u; class_ < classes; class_++) {
        left -= exponential(z[first + class_] - largest);
        if left < 0.0 {
            label = class_;
            break;
        }
    }
    labels[sample + table[4]] = f32(label);
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
