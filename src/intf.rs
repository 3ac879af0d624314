//! The types that the BPF side and the Rust side share, generated from src/bpf/intf.h.
#![allow(missing_docs, unsafe_code, dead_code)]
#![allow(non_camel_case_types, non_upper_case_globals, non_snake_case)]
#![allow(
    clippy::all,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing
)]

include!(concat!(env!("GENERATED"), "/bpf_intf.rs"));
