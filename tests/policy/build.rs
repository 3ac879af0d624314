//! Compiles the scheduler's integer mathematics for this machine.

/// The header under test, and what it includes.
const BPF: &str = "../../src/bpf";

fn main() {
    for file in ["policy.bpf.h", "intf.h"] {
        println!("cargo::rerun-if-changed={BPF}/{file}");
    }
    println!("cargo::rerun-if-changed=src/shim.c");

    // What C leaves undefined (a shift too far, an index out of range) stops the test; it needs no
    // run-time library to do so.
    cc::Build::new()
        .file("src/shim.c")
        .include(BPF)
        .std("gnu11")
        .opt_level(2)
        .flag("-fsanitize=undefined")
        .flag("-fsanitize-undefined-trap-on-error")
        .compile("policy");
}
