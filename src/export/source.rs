//! A policy as one file of C99 or of Rust, without a heap, a library or a header of any system.
//!
//! Both files have the same three parts: the exponential and tanh that small machines lack, the weights, and the functions.
//! The exponential is 2ⁿ·eʳ with |r| ≤ ½ log 2 and a polynomial of degree 6 for eʳ, to about 1e-7 of its value.

use super::Program;
use crate::actor::Actor;
use crate::nn::{Activation, LogStd, Mean};
use crate::normalizer::Normalizer;
use std::fmt::Write;

/// What differs between the two languages.
struct Language {
    comment: &'static str,
    /// A constant array of a name, a length and its elements.
    array: fn(&str, usize, &str) -> String,
    /// The suffix of a number.
    suffix: &'static str,
    mathematics: &'static str,
}

const C: Language = Language {
    comment: "/*",
    array: |name, length, elements| format!("static const float {name}[{length}] = {{{elements}}};\n"),
    suffix: "f",
    mathematics: include_str!("mathematics.c"),
};

const RUST: Language = Language {
    comment: "//",
    array: |name, length, elements| format!("static {}: [f32; {length}] = [{elements}];\n", name.to_uppercase()),
    suffix: "",
    mathematics: include_str!("mathematics.rs.txt"),
};

impl Language {
    fn numbers<'a>(&self, values: impl IntoIterator<Item = &'a f32>) -> String {
        // The shortest decimal number that reads back as the same float.
        values.into_iter().map(|value| format!("{value:e}{}", self.suffix)).collect::<Vec<_>>().join(", ")
    }

    fn arrays(&self, program: &Program) -> String {
        let mut text = String::new();
        for layer in program.chains.iter().flat_map(|chain| chain.trunk.iter().chain(&chain.heads)) {
            let name = layer.name.replace('.', "_");
            text += &(self.array)(&format!("{name}_weight"), layer.weight.len(), &self.numbers(&layer.weight));
            text += &(self.array)(&format!("{name}_bias"), layer.bias.len(), &self.numbers(&layer.bias));
        }
        if let Some(normalizer) = &program.normalizer {
            let (center, spread) = (normalizer.center(), normalizer.spread());
            text += &(self.array)("observation_center", center.len(), &self.numbers(center));
            text += &(self.array)("observation_spread", spread.len(), &self.numbers(spread));
        }
        text += &(self.array)("low", program.low.len(), &self.numbers(&program.low));
        text += &(self.array)("high", program.high.len(), &self.numbers(&program.high));
        text
    }
}

/// What stands at the head of both files.
fn head(program: &Program, environment: &str, language: &Language, usage: &str) -> String {
    let (o, a) = (program.observation_size, program.actions());
    // A name must not end the comment that it stands in.
    let allowed = |c: char| if c.is_alphanumeric() || " -_.:".contains(c) { c } else { '?' };
    let environment: String = environment.chars().map(allowed).collect();
    let lines = format!(
        "A policy trained by soft-actor-critic on {environment}: {o} observation and {a} action dimensions, both in the\n\
         environment's own units. It needs no library and no heap.\n\n{usage}"
    );
    if language.comment == "/*" {
        return format!("/* {} */\n", lines.replace('\n', "\n   "));
    }
    lines.lines().map(|line| format!("// {line}").trim_end().to_string() + "\n").collect()
}

/// The widest layer, which is how much room the functions need on the stack, twice.
fn widest(program: &Program) -> usize {
    let layers = program.chains.iter().flat_map(|chain| &chain.trunk);
    layers.map(|layer| layer.bias.len()).max().unwrap_or(0).max(program.observation_size)
}

/// One file of C99: `void policy_act(const float *observation, float *action)`, or with `const float *noise` between.
pub fn to_c(actor: &Actor, environment: &str, stochastic: bool) -> String {
    let program = Program::new(actor, stochastic);
    let (o, a, width) = (program.observation_size, program.actions(), widest(&program));
    let noise = if stochastic { format!("const float noise[{a}], ") } else { String::new() };
    let declaration = format!("void policy_act(const float observation[{o}], {noise}float action[{a}])");
    let mut text = head(&program, environment, &C, &format!("{declaration};"));
    text += C.mathematics;
    text += "\n";
    text += &C.arrays(&program);
    let _ = write!(text, "\n{declaration};\n\n{declaration} {{\n");
    let _ = write!(text, "    float x[{width}], mean[{a}]");
    if program.chains.iter().any(|chain| !chain.trunk.is_empty()) {
        let _ = write!(text, ", y[{width}]");
    }
    text += &if stochastic { format!(", log_std[{a}];\n") } else { ";\n".into() };
    let _ = writeln!(text, "    int i;");
    let activation = match program.activation {
        Activation::Relu => "sac_relu",
        Activation::Tanh => "sac_tanh",
    };
    for chain in &program.chains {
        let seen = match program.normalizer {
            Some(_) => {
                let limit = C.numbers(&[Normalizer::LIMIT]);
                format!(
                    "sac_clamp((observation[i] - observation_center[i]) / observation_spread[i], -{limit}, {limit})"
                )
            }
            None => "observation[i]".into(),
        };
        let _ = writeln!(text, "    for (i = 0; i < {o}; i++) x[i] = {seen};");
        for layer in &chain.trunk {
            let (name, [outputs, inputs]) =
                (layer.name.replace('.', "_"), [layer.weight.nrows(), layer.weight.ncols()]);
            let _ = writeln!(text, "    sac_layer({name}_weight, {name}_bias, x, {inputs}, y, {outputs});");
            let _ = writeln!(text, "    for (i = 0; i < {outputs}; i++) x[i] = {activation}(y[i]);");
        }
        for head in &chain.heads {
            let (name, inputs) = (&head.name, head.weight.ncols());
            let _ = writeln!(text, "    sac_layer({name}_weight, {name}_bias, x, {inputs}, {name}, {a});");
        }
    }
    let _ = writeln!(text, "    for (i = 0; i < {a}; i++) {{");
    let mean = if program.mean_form == Mean::Tanh { "sac_tanh(mean[i])" } else { "mean[i]" };
    let _ = writeln!(text, "        float u = {mean};");
    if stochastic {
        match program.log_std_form {
            LogStd::Clamp { min, max } => {
                let (min, max) = (C.numbers(&[min as f32]), C.numbers(&[max as f32]));
                let _ = writeln!(text, "        u += sac_exp(sac_clamp(log_std[i], {min}, {max})) * noise[i];");
            }
            LogStd::Tanh { min, max } => {
                let (min, half) = (C.numbers(&[min as f32]), C.numbers(&[(0.5 * (max - min)) as f32]));
                let _ =
                    writeln!(text, "        u += sac_exp({min} + {half} * (sac_tanh(log_std[i]) + 1.0f)) * noise[i];");
            }
        }
    }
    text +=
        "        action[i] = sac_clamp(low[i] + 0.5f * (sac_tanh(u) + 1.0f) * (high[i] - low[i]), low[i], high[i]);\n";
    text += "    }\n}\n";
    text
}

/// One file of Rust, a module of `no_std`: `pub fn act(observation: &[f32; O]) -> [f32; A]`, or with `noise: &[f32; A]` after
/// it.
pub fn to_rust(actor: &Actor, environment: &str, stochastic: bool) -> String {
    let program = Program::new(actor, stochastic);
    let (o, a, width) = (program.observation_size, program.actions(), widest(&program));
    let noise = if stochastic { format!(", noise: &[f32; {a}]") } else { String::new() };
    let declaration = format!("pub fn act(observation: &[f32; {o}]{noise}) -> [f32; {a}]");
    let mut text = head(
        &program,
        environment,
        &RUST,
        &format!("It is a module: `mod policy;`, then `policy::act`.\n{declaration}"),
    );
    text += "\n";
    text += RUST.mathematics;
    text += "\n";
    text += &RUST.arrays(&program);
    let _ = write!(text, "\n/// The action for an observation, both in the environment's units.\n{declaration} {{\n");
    let _ = writeln!(text, "    let mut x = [0.0_f32; {width}];");
    if program.chains.iter().any(|chain| !chain.trunk.is_empty()) {
        let _ = writeln!(text, "    let mut y = [0.0_f32; {width}];");
    }
    let _ = writeln!(text, "    let mut mean = [0.0_f32; {a}];");
    if stochastic {
        let _ = writeln!(text, "    let mut log_std = [0.0_f32; {a}];");
    }
    let activation = match program.activation {
        Activation::Relu => "relu",
        Activation::Tanh => "tanh",
    };
    for chain in &program.chains {
        let _ = writeln!(text, "    x[..{o}].copy_from_slice(observation);");
        if program.normalizer.is_some() {
            let limit = RUST.numbers(&[Normalizer::LIMIT]);
            let seen = format!("clamp((x[i] - OBSERVATION_CENTER[i]) / OBSERVATION_SPREAD[i], -{limit}, {limit})");
            let _ = writeln!(text, "    for i in 0..{o} {{\n        x[i] = {seen};\n    }}");
        }
        for layer in &chain.trunk {
            let (name, [outputs, inputs]) =
                (layer.name.replace('.', "_").to_uppercase(), [layer.weight.nrows(), layer.weight.ncols()]);
            let _ = writeln!(text, "    layer(&{name}_WEIGHT, &{name}_BIAS, &x[..{inputs}], &mut y[..{outputs}]);");
            let _ = writeln!(text, "    for i in 0..{outputs} {{\n        x[i] = {activation}(y[i]);\n    }}");
        }
        for head in &chain.heads {
            let (name, constant, inputs) = (&head.name, head.name.to_uppercase(), head.weight.ncols());
            let _ = writeln!(text, "    layer(&{constant}_WEIGHT, &{constant}_BIAS, &x[..{inputs}], &mut {name});");
        }
    }
    let _ = writeln!(text, "    let mut action = [0.0_f32; {a}];\n    for i in 0..{a} {{");
    let mean = if program.mean_form == Mean::Tanh { "tanh(mean[i])" } else { "mean[i]" };
    let _ = writeln!(text, "        let u = {mean};");
    if stochastic {
        match program.log_std_form {
            LogStd::Clamp { min, max } => {
                let (min, max) = (RUST.numbers(&[min as f32]), RUST.numbers(&[max as f32]));
                let _ = writeln!(text, "        let u = u + exp(clamp(log_std[i], {min}, {max})) * noise[i];");
            }
            LogStd::Tanh { min, max } => {
                let (min, half) = (RUST.numbers(&[min as f32]), RUST.numbers(&[(0.5 * (max - min)) as f32]));
                let _ =
                    writeln!(text, "        let u = u + exp({min} + {half} * (tanh(log_std[i]) + 1.0)) * noise[i];");
            }
        }
    }
    text += "        let scaled = LOW[i] + 0.5 * (tanh(u) + 1.0) * (HIGH[i] - LOW[i]);\n";
    text += "        action[i] = clamp(scaled, LOW[i], HIGH[i]);\n    }\n    action\n}\n";
    text
}
