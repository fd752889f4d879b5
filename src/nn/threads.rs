//! How work is shared among threads: rayon's, in such a way that nobody falls asleep in the middle of an update.
//!
//! A thread of rayon's that finds nothing to do goes to sleep after some microseconds, and waking it takes tens of them. An
//! update hands work over a dozen times, so here a thread that waits goes on looking for work, as do, inside [`run`], those
//! that have none.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// For how long a thread looks for work before it lets others run in between, before it begins to nap, and its naps, each
/// longer than the one before.
const EAGER: Duration = Duration::from_micros(20);
const AWAKE: Duration = Duration::from_millis(1);
const NAPS: [Duration; 2] = [Duration::from_micros(50), Duration::from_millis(2)];

/// Whether something has ended, by return or by panic.
#[derive(Default)]
struct Ended(AtomicBool);

/// Says so when it is dropped.
struct Ending<'a>(&'a Ended);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Release);
    }
}

impl Ended {
    /// Does what work there is until then.
    fn wait(&self) {
        let (mut idle_since, mut nap) = (None, NAPS[0]);
        while !self.0.load(Ordering::Acquire) {
            if rayon::yield_now() == Some(rayon::Yield::Executed) {
                (idle_since, nap) = (None, NAPS[0]);
                continue;
            }
            match idle_since.get_or_insert_with(Instant::now).elapsed() {
                idle if idle < EAGER => std::hint::spin_loop(),
                idle if idle < AWAKE => std::thread::yield_now(),
                _ => {
                    std::thread::sleep(nap);
                    nap = NAPS[1].min(2 * nap);
                }
            }
        }
    }
}

/// Does both, at the same time if a thread is free.
pub fn join<A: Send, B: Send>(a: impl FnOnce() -> A + Send, b: impl FnOnce() -> B + Send) -> (A, B) {
    let ended = Ended::default();
    rayon::join(
        || {
            let result = a();
            ended.wait();
            result
        },
        || {
            let _ending = Ending(&ended);
            b()
        },
    )
}

/// [`join`] if it is `worthwhile`: if each half takes several times the microsecond that it takes to hand over.
pub fn join_if<A: Send, B: Send>(
    worthwhile: bool,
    a: impl FnOnce() -> A + Send,
    b: impl FnOnce() -> B + Send,
) -> (A, B) {
    if worthwhile { join(a, b) } else { (a(), b()) }
}

/// What [`for_each`] divides among threads: a slice, or a pair of them, whose elements go together.
pub trait Items: Send + Sized {
    /// One of them.
    type Item;

    /// How many there are.
    fn count(&self) -> usize;

    /// The first ones, as many as `middle` says, and the others.
    fn divide(self, middle: usize) -> (Self, Self);

    /// The first one.
    fn first(self) -> Option<Self::Item>;
}

impl<'a, I: Send> Items for &'a mut [I] {
    type Item = &'a mut I;

    fn count(&self) -> usize {
        self.len()
    }

    fn divide(self, middle: usize) -> (Self, Self) {
        self.split_at_mut(middle)
    }

    fn first(self) -> Option<&'a mut I> {
        self.first_mut()
    }
}

impl<A: Items, B: Items> Items for (A, B) {
    type Item = (A::Item, B::Item);

    fn count(&self) -> usize {
        assert_eq!(self.0.count(), self.1.count(), "they go together");
        self.0.count()
    }

    fn divide(self, middle: usize) -> (Self, Self) {
        let ((a_left, a_right), (b_left, b_right)) = (self.0.divide(middle), self.1.divide(middle));
        ((a_left, b_left), (a_right, b_right))
    }

    fn first(self) -> Option<Self::Item> {
        self.0.first().zip(self.1.first())
    }
}

/// Does `work` with the index of each of `items` and the item itself, at the same time where threads are free; neighbours
/// tend to go to the same thread.
pub fn for_each<I: Items>(items: I, work: &(impl Fn(usize, I::Item) + Sync)) {
    fn from<I: Items>(start: usize, items: I, work: &(impl Fn(usize, I::Item) + Sync)) {
        match items.count() {
            0 => {}
            1 => work(start, items.first().expect("there is one")),
            count => {
                let middle = count / 2;
                let (left, right) = items.divide(middle);
                join(|| from(start, left, work), || from(start + middle, right, work));
            }
        }
    }
    from(0, items, work);
}

/// Does `work` on a thread of `pool`, while the others stay awake for what it hands over.
pub fn run<R: Send>(pool: &rayon::ThreadPool, work: impl FnOnce() -> R + Send) -> R {
    let (ended, work) = (Ended::default(), Mutex::new(Some(work)));
    let results = pool.broadcast(|thread| {
        if thread.index() > 0 {
            ended.wait();
            return None;
        }
        let _ending = Ending(&ended);
        let work = work.lock().expect("nobody else takes it").take();
        work.map(|work| work())
    });
    results.into_iter().flatten().next().expect("every pool has a first thread")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Barrier;

    fn pool(threads: usize) -> rayon::ThreadPool {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("there are threads")
    }

    fn sum(from: u64, to: u64) -> u64 {
        if to - from < 3 {
            return (from..to).sum();
        }
        let middle = from.midpoint(to);
        let (left, right) = join(|| sum(from, middle), || sum(middle, to));
        left + right
    }

    #[test]
    fn everything_is_done_once_on_any_number_of_threads() {
        for threads in [1, 2, 3, 8] {
            let work = || {
                let mut items = vec![0; 1000];
                for_each(&mut items[..], &|i, item| *item = i as u64 + sum(0, 100));
                items.iter().sum::<u64>()
            };
            let expected = 999 * 1000 / 2 + 1000 * (99 * 100 / 2);
            assert_eq!(run(&pool(threads), work), expected);
            assert_eq!(pool(threads).install(work), expected, "without the others awake");
        }
        assert_eq!(sum(0, 100), 4950, "outside of any pool");
    }

    /// A panic of either half comes out, instead of leaving the other to wait for ever.
    #[test]
    fn panics_come_out() {
        for threads in [1, 2, 3] {
            for fails in [[false, false], [true, false], [false, true], [true, true]] {
                let [a, b] = fails.map(|fails| move || assert!(!fails, "expected"));
                let result = catch_unwind(AssertUnwindSafe(|| run(&pool(threads), || join(a, b))));
                assert_eq!(result.is_err(), fails.contains(&true));
            }
        }
    }

    /// Each half waits for the other; so does the first, after naps of the others.
    #[test]
    fn halves_run_side_by_side() {
        run(&pool(2), || {
            for pause in [0, 5] {
                std::thread::sleep(Duration::from_millis(pause));
                let both = Barrier::new(2);
                join(|| both.wait(), || both.wait());
            }
        });
    }
}
