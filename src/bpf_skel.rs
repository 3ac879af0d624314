//! The scheduler's skeleton, generated from src/bpf. Only sched.rs may use it.
#![allow(missing_docs, unsafe_code, dead_code)]
#![allow(clippy::all, clippy::expect_used, clippy::panic, clippy::unwrap_used)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap
)]

include!(concat!(env!("GENERATED"), "/bpf_skel.rs"));
