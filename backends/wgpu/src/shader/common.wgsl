// What all shaders share: the table of jobs and arithmetic whose result is defined everywhere.

@group(0) @binding(0) var<storage, read> table: array<u32>;

fn number(at: u32) -> f32 {
    return bitcast<f32>(table[at]);
}

// The shading language may assume that there is no NaN and no infinity; their bits are certain.
fn is_nan(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}

fn is_finite(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7f800000u) != 0x7f800000u;
}

// β·old, where β = 0 ignores even NaN and infinity.
fn scaled(beta: f32, old: f32) -> f32 {
    if beta == 0.0 {
        return 0.0;
    }
    return beta * old;
}

// eˣ = 2ᵏ·eʳ with |r| ≤ ln 2 / 2: drivers promise less than the seventh Taylor polynomial gives.
fn exponential(x: f32) -> f32 {
    if is_nan(x) {
        return x;
    }
    if x > 88.8 {
        return x * 3.0e38;
    }
    if x < -87.3 {
        return 0.0;
    }
    let k = round(x * 1.4426950);
    // ln 2 in two parts, the first exact in so few bits that k times it is exact (Cody and Waite).
    let r = (x - k * 0.693359375) + k * 2.1219444e-4;
    var p = 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    // 2¹²⁸ is no number, its halves are.
    let half = i32(k) / 2;
    let rest = i32(k) - half;
    return p * bitcast<f32>(u32(half + 127) << 23u) * bitcast<f32>(u32(rest + 127) << 23u);
}

fn sigmoid(x: f32) -> f32 {
    return 1.0 / (1.0 + exponential(-x));
}
