// A = Q·diag(d)·Qᵀ for every job, by cyclic Jacobi rotations (Golub & Van Loan §8.5) in the tournament order of §8.5.4, in
// which half of the rows and columns are paired with the other half, and all pairs turn at once.
//
// One workgroup per matrix. A rotation is applied as x ← x − s·(y + τ·x), y ← y + s·(x − τ·y) with τ = s/(1 + c), which
// loses nothing where the angle is small (Rutishauser 1966). Where A has a NaN or an infinity, d is all NaN.
//
// Table: workgroups, 0; then per job: n, offset and column step of A, offset of d, offset of Q in scratch, 0.

@group(0) @binding(1) var<storage, read_write> line: array<f32>;
@group(0) @binding(2) var<storage, read_write> values: array<f32>;
@group(0) @binding(3) var<storage, read_write> q_line: array<f32>;

const HEADER = 2u;
const RECORD = 6u;
const THREADS = 256u;
const PAIRS = 512u;
const SWEEPS = 20u;

var<workgroup> sines: array<f32, PAIRS>;
var<workgroup> taus: array<f32, PAIRS>;
var<workgroup> places: array<u32, 2u * PAIRS>;
var<workgroup> partial: array<f32, THREADS>;
var<workgroup> turned: atomic<u32>;
var<workgroup> seen: u32;

// The tournament: player 0 stays, the others move on by one place a round.
fn player(place: u32, round: u32, players: u32) -> u32 {
    if place == 0u {
        return 0u;
    }
    return (place - 1u + round) % (players - 1u) + 1u;
}

// The lower and the higher number of a pair; the higher one is n where a number has no partner.
fn pair(number: u32, round: u32, players: u32) -> vec2<u32> {
    let one = player(number, round, players);
    let other = player(players - 1u - number, round, players);
    return vec2<u32>(min(one, other), max(one, other));
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let id = group.x + group.y * grid.x;
    if id >= table[0] {
        return;
    }
    let at = HEADER + id * RECORD;
    let n = table[at];
    let a = table[at + 1u];
    let step = table[at + 2u];
    let d = table[at + 3u];
    let q = table[at + 4u];
    let players = (n + 1u) / 2u * 2u;
    let pairs = players / 2u;
    // The lower triangle decides; Q begins as 1.
    var largest = 0.0;
    var spoilt = 0u;
    for (var element = local; element < n * n; element += THREADS) {
        let row = element % n;
        let column = element / n;
        if row >= column {
            let value = line[a + row + column * step];
            line[a + column + row * step] = value;
            largest = max(largest, abs(value));
            if !is_finite(value) {
                spoilt = 1u;
            }
        }
        q_line[q + element] = select(0.0, 1.0, row == column);
    }
    partial[local] = select(largest, -1.0, spoilt != 0u);
    storageBarrier();
    workgroupBarrier();
    if local == 0u {
        largest = 0.0;
        spoilt = 0u;
        for (var thread = 0u; thread < THREADS; thread++) {
            largest = max(largest, partial[thread]);
            spoilt = select(spoilt, 1u, partial[thread] < 0.0);
        }
        // What is off the diagonal is nothing where it is this small beside the largest element.
        partial[0] = largest * 1.1920929e-8 / f32(max(n, 1u));
        seen = spoilt;
        atomicStore(&turned, 0u);
    }
    workgroupBarrier();
    let least = partial[0];
    let is_spoilt = workgroupUniformLoad(&seen) != 0u;
    for (var sweep = 0u; sweep < SWEEPS && !is_spoilt; sweep++) {
        for (var round = 0u; round + 1u < players; round++) {
            for (var number_ = local; number_ < pairs; number_ += THREADS) {
                let both = pair(number_, round, players);
                var s = 0.0;
                var tau = 0.0;
                if both.y < n {
                    let off = line[a + both.y + both.x * step];
                    if abs(off) > least {
                        let p = a + both.x + both.x * step;
                        let r = a + both.y + both.y * step;
                        let theta = (line[r] - line[p]) / (2.0 * off);
                        // θ² may be too large for a number.
                        var t = 1.0 / (abs(theta) + sqrt(theta * theta + 1.0));
                        if abs(theta) > 1.0e15 {
                            t = 0.5 / abs(theta);
                        }
                        t = select(t, -t, theta < 0.0);
                        let c = 1.0 / sqrt(t * t + 1.0);
                        s = t * c;
                        tau = s / (1.0 + c);
                        atomicStore(&turned, 1u);
                    }
                }
                sines[number_] = s;
                taus[number_] = tau;
            }
            storageBarrier();
            workgroupBarrier();
            // Columns of A and of Q.
            for (var element = local; element < pairs * n; element += THREADS) {
                let row = element % n;
                let number_ = element / n;
                let both = pair(number_, round, players);
                let s = sines[number_];
                if s != 0.0 {
                    let tau = taus[number_];
                    let left = a + row + both.x * step;
                    let right = a + row + both.y * step;
                    let x = line[left];
                    let y = line[right];
                    line[left] = x - s * (y + tau * x);
                    line[right] = y + s * (x - tau * y);
                    let left_q = q + row + both.x * n;
                    let right_q = q + row + both.y * n;
                    let x_q = q_line[left_q];
                    let y_q = q_line[right_q];
                    q_line[left_q] = x_q - s * (y_q + tau * x_q);
                    q_line[right_q] = y_q + s * (x_q - tau * y_q);
                }
            }
            storageBarrier();
            workgroupBarrier();
            // Rows of A.
            for (var element = local; element < pairs * n; element += THREADS) {
                let number_ = element % pairs;
                let column = element / pairs;
                let both = pair(number_, round, players);
                let s = sines[number_];
                if s != 0.0 {
                    let tau = taus[number_];
                    let upper = a + both.x + column * step;
                    let lower = a + both.y + column * step;
                    let x = line[upper];
                    let y = line[lower];
                    // What the rotation is for is exactly 0, not what rounding leaves of it.
                    line[upper] = select(x - s * (y + tau * x), 0.0, column == both.y);
                    line[lower] = select(y + s * (x - tau * y), 0.0, column == both.x);
                }
            }
            storageBarrier();
            workgroupBarrier();
        }
        if local == 0u {
            seen = atomicExchange(&turned, 0u);
        }
        workgroupBarrier();
        if workgroupUniformLoad(&seen) == 0u {
            break;
        }
    }
    // In ascending order, equals in the order they have.
    for (var from_ = local; from_ < n; from_ += THREADS) {
        let value = line[a + from_ + from_ * step];
        var place = 0u;
        for (var other = 0u; other < n; other++) {
            let rival = line[a + other + other * step];
            if rival < value || (rival == value && other < from_) {
                place++;
            }
        }
        if is_spoilt {
            place = from_;
        }
        places[from_] = place;
        // A NaN that no compiler computes beforehand, which the language forbids.
        values[d + place] = select(value, bitcast<f32>(0x7fc00000u | (id & 1u)), is_spoilt);
    }
    storageBarrier();
    workgroupBarrier();
    for (var element = local; element < n * n; element += THREADS) {
        line[a + element % n + places[element / n] * step] = q_line[q + element];
    }
}
