//! What devices can do at best, as their makers say.

/// Operations per second in single precision without tensor cores, and bytes per second from memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Peak {
    /// Multiplications and additions, counted one by one.
    pub(crate) flops: f64,
    /// Bytes.
    pub(crate) bandwidth: f64,
}

/// A part of the device's name, TFLOP/s and GB/s, from the makers' data sheets; the more special name first.
const KNOWN: [(&str, f64, f64); 16] = [
    ("H200", 67.0, 4800.0),
    ("H100 PCIe", 51.0, 2000.0),
    ("H100", 67.0, 3350.0),
    ("A100-SXM4-80GB", 19.5, 2039.0),
    ("A100", 19.5, 1555.0),
    ("V100", 15.7, 900.0),
    ("L40S", 91.6, 864.0),
    ("L4", 30.3, 300.0),
    ("A10", 31.2, 600.0),
    ("T4", 8.1, 320.0),
    ("RTX 4090 Laptop", 33.0, 576.0),
    ("RTX 4090", 82.6, 1008.0),
    ("RTX 4060 Laptop", 11.6, 256.0),
    ("RTX 3090", 35.6, 936.0),
    ("RTX 3080", 29.8, 760.0),
    ("RTX 3060", 12.7, 360.0),
];

/// The peak of the device of this name, if it is known.
pub(crate) fn of(name: &str) -> Option<Peak> {
    // "A10" is not "A100": names are compared word by word.
    let words = |name: &'static str| -> Vec<&str> { name.split([' ', '-']).collect() };
    let own: Vec<&str> = name.split([' ', '-']).collect();
    let contains = |known| {
        let known = words(known);
        own.windows(known.len()).any(|some| some == known)
    };
    let found = KNOWN.iter().find(|(known, ..)| contains(known));
    found.map(|&(_, flops, bandwidth)| Peak { flops: 1e12 * flops, bandwidth: 1e9 * bandwidth })
}
