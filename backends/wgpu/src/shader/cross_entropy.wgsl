// loss ← [Σ target·(log Σ eᶻ − z) / batch; number of right answers], dz ← (softmax(z) − target) / batch, with
// target = 1 − s + s/classes for the label's class and s/classes for the others.
//
// One workgroup; a thread takes every 256th sample, a tree adds up the threads.
//
// Samples that were not bound are added by further launches.
//
// Table: first and end of the samples, what to add to places in z, labels, dz and loss, classes, batch, s.

@group(0) @binding(1) var<storage, read> z: array<f32>;
@group(0) @binding(2) var<storage, read> labels: array<f32>;
@group(0) @binding(3) var<storage, read_write> dz: array<f32>;
@group(0) @binding(4) var<storage, read_write> loss: array<f32>;

const THREADS = 256u;

var<workgroup> losses: array<f32, THREADS>;
var<workgroup> rights: array<f32, THREADS>;

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) local: u32) {
    let classes = table[6];
    let batch = table[7];
    let share = 1.0 / f32(max(batch, 1u));
    let smooth_ = number(8u);
    let off = smooth_ / f32(classes);
    let on = 1.0 - smooth_ + off;
    var total = 0.0;
    var right = 0.0;
    for (var sample = table[0] + local; sample < table[1]; sample += THREADS) {
        let first = sample * classes + table[2];
        let target_ = sample * classes + table[4];
        let label = u32(labels[sample + table[3]]);
        var largest = z[first];
        // Where there are equals, the first one answers.
        var answer = 0u;
        for (var class_ = 1u; class_ < classes; class_++) {
            let value = z[first + class_];
            if value > largest || is_nan(largest) {
                largest = value;
                answer = class_;
            }
        }
        var sum = 0.0;
        for (var class_ = 0u; class_ < classes; class_++) {
            sum += exponential(z[first + class_] - largest);
        }
        let log_sum = log(sum) + largest;
        let scale = 1.0 / sum;
        for (var class_ = 0u; class_ < classes; class_++) {
            let value = z[first + class_];
            let wanted = select(off, on, class_ == label);
            total += wanted * (log_sum - value);
            dz[target_ + class_] = (exponential(value - largest) * scale - wanted) * share;
        }
        if answer == label && !is_nan(z[first + label]) {
            right += 1.0;
        }
    }
    losses[local] = total;
    rights[local] = right;
    workgroupBarrier();
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        if local < half {
            losses[local] += losses[local + half];
            rights[local] += rights[local + half];
        }
        workgroupBarrier();
    }
    if local == 0u {
        var before = vec2<f32>();
        if table[0] > 0u {
            before = vec2<f32>(loss[table[5]], loss[table[5] + 1u]);
        }
        loss[table[5]] = before.x + losses[0] * share;
        loss[table[5] + 1u] = before.y + rights[0];
    }
}
