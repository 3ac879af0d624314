//! Looking at the machine and at the running scheduler without changing either.

pub mod check;
pub mod model;
pub mod stat;
