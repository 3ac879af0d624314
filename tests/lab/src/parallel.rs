//! Independent things at the same time, as many as there are CPUs.

use anyhow::{Result, anyhow};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Does the work for each item; results are in the order of the items. An item whose thread died has an error.
pub fn each<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<R> + Sync,
) -> Vec<Result<R>> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else {
                return done;
            };
            done.push((index, work(item)));
        }
    };
    let mut results: Vec<Result<R>> = (items.iter())
        .map(|_| Err(anyhow!("a thread of the lab has died")))
        .collect();
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let workers = workers.min(items.len());
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        let finished = threads.into_iter().filter_map(|thread| thread.join().ok());
        for (index, result) in finished.flatten() {
            if let Some(place) = results.get_mut(index) {
                *place = result;
            }
        }
    });
    results
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;

    #[test]
    fn results_are_in_the_order_of_the_items_and_errors_are_their_own() {
        let items: Vec<u64> = (0..50).collect();
        let odd_fails = |item: &u64| {
            if item % 2 == 1 {
                bail!("{item} is odd");
            }
            Ok(item * 10)
        };
        for (item, result) in items.iter().zip(each(&items, odd_fails)) {
            match result {
                Ok(tenfold) => assert_eq!(tenfold, item * 10),
                Err(error) => assert_eq!(error.to_string(), format!("{item} is odd")),
            }
        }
        assert!(each(&[], odd_fails).is_empty());
    }
}
