//! What the command line asks of a bench that measures without criterion.

use std::time::Duration;

/// The arguments of a bench.
pub struct Arguments(Vec<String>);

impl Arguments {
    /// Reads them. `cargo bench` passes its arguments to all benches: one that is not among `known` is named and ignored.
    pub fn read(known: &[&str]) -> Self {
        let all: Vec<_> = std::env::args().skip(1).collect();
        if all.iter().any(|argument| argument == "--help") {
            println!("arguments: {} --quick --test", known.join(" "));
            std::process::exit(0);
        }
        let (used, ignored): (Vec<_>, Vec<_>) = all
            .into_iter()
            .partition(|argument| ["--bench", "--quick", "--test"].iter().chain(known).any(|a| a == argument));
        if !ignored.is_empty() {
            println!("ignored: {}", ignored.join(" "));
        }
        Self(used)
    }

    /// Whether `argument` is given.
    pub fn has(&self, argument: &str) -> bool {
        self.0.iter().any(|given| given == argument)
    }

    /// Whether to measure, as under `cargo bench`, or only to show that the bench runs.
    pub fn measures(&self) -> bool {
        self.has("--bench") && !self.has("--test")
    }

    /// How long to measure: `usual`, a tenth of it with `--quick`, zero where nothing is to be measured.
    pub fn lasting(&self, usual: Duration) -> Duration {
        match (self.measures(), self.has("--quick")) {
            (false, _) => Duration::ZERO,
            (true, true) => usual / 10,
            (true, false) => usual,
        }
    }
}
