//! The model against synthetic machines whose true costs are known.

#[cfg(test)]
mod accuracy;
#[cfg(test)]
mod changes;
#[allow(dead_code, reason = "bench/model uses all of it")]
#[cfg(test)]
mod design;
#[allow(dead_code, reason = "bench/model uses all of it")]
#[cfg(test)]
mod machine;
#[allow(dead_code, reason = "bench/model uses all of it")]
#[cfg(test)]
mod score;
#[cfg(test)]
mod soc;
