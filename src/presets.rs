//! The published systems as configurations, the default, and its variant for larger tasks, embedded in the binary.
//!
//! Each is a TOML file in `src/presets/` that says what it is in its first line; `docs/variants.md` compares them.

/// Name and TOML text, in the order in which they are listed.
pub const PRESETS: [(&str, &str); 7] = [
    ("default", include_str!("presets/default.toml")),
    ("mujoco", include_str!("presets/mujoco.toml")),
    ("twin-q-auto", include_str!("presets/twin-q-auto.toml")),
    ("v-net-auto", include_str!("presets/v-net-auto.toml")),
    ("twin-q-fixed", include_str!("presets/twin-q-fixed.toml")),
    ("v-net-fixed", include_str!("presets/v-net-fixed.toml")),
    ("split-policy", include_str!("presets/split-policy.toml")),
];

/// The TOML text of the preset called `name`.
pub fn preset(name: &str) -> Option<&'static str> {
    PRESETS.iter().find(|(known, _)| *known == name).map(|&(_, text)| text)
}

/// What a preset says of itself in one line.
pub fn summary(text: &str) -> &str {
    text.lines().next().unwrap_or_default().trim_start_matches("# ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::run::config_file::parse;

    #[test]
    fn every_preset_is_a_valid_configuration_and_tells_what_it_is() {
        for (name, text) in PRESETS {
            let config = parse(text, "pendulum").unwrap_or_else(|e| panic!("{name}: {e:#}"));
            assert_eq!(config.validate(), Ok(()), "{name}");
            assert!(summary(text).len() > 20 && text.starts_with("# "), "{name}");
        }
    }

    #[test]
    fn the_default_preset_is_the_default() {
        let text = preset("default").expect("there is one");
        assert_eq!(parse(text, "pendulum").expect("it is valid"), Config::default());
    }
}
