//! Looking at the machine and at the running scheduler without changing either.

pub mod check;
pub mod model;
pub mod stat;

/// Characters to which a table's column is padded. Files say what some cells hold, and `format!` pads to 65535 at
/// most; what is longer stands out of its column.
const WIDEST: usize = 100;
