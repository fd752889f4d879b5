//! The numbers that an environment gives of an episode, checked.

use super::MAX_INFO;
use std::collections::BTreeMap;

/// The characters of a name in [`Info`], at most.
const NAME: usize = 64;

/// What [`Env::info`](super::Env::info) gives of an episode, or its means over several episodes: at most [`MAX_INFO`] finite
/// numbers, by name. A name has at most 64 characters. In place of white space, control characters, commas, quotes and
/// backslashes it has underscores, so that it can be the name of a column.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Info(BTreeMap<String, f64>);

impl Info {
    /// No numbers.
    pub const NONE: Self = Self(BTreeMap::new());

    /// The first of these numbers. Where two have the same name, the first counts.
    pub fn new<'a>(numbers: impl IntoIterator<Item = (&'a str, f64)>) -> Self {
        let mut info = BTreeMap::new();
        for (name, number) in numbers.into_iter().filter(|(_, number)| number.is_finite()) {
            let name = clean(name);
            if info.len() < MAX_INFO || info.contains_key(&name) {
                info.entry(name).or_insert(number);
            }
        }
        Self(info)
    }

    /// The mean of each number over the episodes that have it.
    pub fn means(episodes: &[Self]) -> Self {
        let mut sums: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
        for (name, number) in episodes.iter().flat_map(Self::iter) {
            let (sum, count) = sums.entry(name).or_default();
            (*sum, *count) = (*sum + number, *count + 1.0);
        }
        Self::new(sums.into_iter().map(|(name, (sum, count))| (name, sum / count)))
    }

    /// The numbers, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> + Clone {
        self.0.iter().map(|(name, &number)| (name.as_str(), number))
    }

    /// The number of this name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }

    /// Whether it has no numbers.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn clean(name: &str) -> String {
    let fits = |c: char| c.is_alphanumeric() || c.is_ascii_graphic() && !r#",;"'`\"#.contains(c);
    name.chars().take(NAME).map(|c| if fits(c) { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_can_be_those_of_columns() {
        for (name, expected) in [
            ("is_success", "is_success"),
            ("reward/dist (m²)", "reward/dist_(m²)"),
            ("a,b\nc\r\"d\"\t'e'", "a_b_c__d___e_"),
            ("\u{1b}[31mred\u{202e}", "_[31mred_"),
            (&"é".repeat(100), &"é".repeat(64)),
        ] {
            assert_eq!(Info::new([(name, 1.0)]).iter().collect::<Vec<_>>(), [(expected, 1.0)]);
            assert_eq!(clean(expected), expected);
        }
    }

    #[test]
    fn numbers_are_finite_and_few() {
        let info = Info::new([("a", f64::NAN), ("a,", 1.0), ("a;", 2.0), ("b", f64::INFINITY), ("c", -0.5)]);
        assert_eq!(info.iter().collect::<Vec<_>>(), [("a_", 1.0), ("c", -0.5)]);
        let names: Vec<_> = (0..100).map(|i| i.to_string()).collect();
        assert_eq!(Info::new(names.iter().map(|name| (name.as_str(), 0.0))).iter().count(), MAX_INFO);
    }

    #[test]
    fn means_are_over_the_episodes_that_have_the_number() {
        let episodes = [Info::new([("a", 1.0)]), Info::new([("a", 0.0), ("b", 3.0)]), Info::NONE];
        assert_eq!(Info::means(&episodes), Info::new([("a", 0.5), ("b", 3.0)]));
        assert_eq!(Info::means(&[Info::new([("a", f64::MAX)]), Info::new([("a", f64::MAX)])]), Info::NONE);
    }
}
