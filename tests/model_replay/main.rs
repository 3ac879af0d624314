//! The model against synthetic machines whose true costs are known.

#[cfg(test)]
mod accuracy;
#[cfg(test)]
mod machine;
