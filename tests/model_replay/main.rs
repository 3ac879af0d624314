//! The model against synthetic machines whose true costs are known.

#[cfg(test)]
mod accuracy;
#[cfg(test)]
mod changes;
#[cfg(test)]
mod machine;
#[cfg(test)]
mod score;
