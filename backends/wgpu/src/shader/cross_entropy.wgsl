// loss ← [Σ target·(log Σ eᶻ − z) / batch; number of right answers], dz ← (softmax(z) − target) / batch, with
// target = 1 − s + s/classes for the label's class and s/classes for the others.
//
// One workgroup; a thread takes every 256th sample, a tree adds up the threads.
//
// Table: classes, batch, s.

@group(0) @binding(1) var<storage, read> z: array<f32>;
@group(0) @binding(2) var<storage, read> labels: array<f32>;
@group(0) @binding(3) var<storage, read_write> dz: array<f32>;
@group(0) @binding(4) var<storage, read_write> loss: array<f32>;

const THREADS = 256u;

var<workgroup> losses: array<f32, THREADS>;
var<workgroup> rights: array<f32, THREADS>;

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) local: u32) {
    let classes = table[0];
    let batch = table[1];
    let share = 1.0 / f32(max(batch, 1u));
    let smooth_ = number(2u);
    let off = smooth_ / f32(classes);
    let on = 1.0 - smooth_ + off;
    var total = 0.0;
    var right = 0.0;
    for (var sample = local; sample < batch; sample += THREADS) {
        let first = sample * classes;
        let label = u32(labels[sample]);
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
            dz[first + class_] = (exponential(value - largest) * scale - wanted) * share;
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
        loss[0] = losses[0] * share;
        loss[1] = rights[0];
    }
}
