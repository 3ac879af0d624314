//! The lab: boots real kernels on an emulated machine with energy counters.
fn main() {}
