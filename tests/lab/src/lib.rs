//! The lab's library: virtual machines described by files, and what they are measured against.

pub mod machine;
pub mod truth;
