//! A policy as an ONNX model: inputs `observation` `[batch, O]` and, if it is stochastic, `noise` `[batch, A]`; output `action`
//! `[batch, A]`; all f32, opset 13.
//!
//! The messages below are those parts of the format (onnx.proto3) that such a model needs, with its field numbers.

use super::Program;
use crate::actor::Actor;
use crate::nn::{Activation, LogStd, Mean};
use crate::normalizer::Normalizer;
use ndarray::Array2;
use prost::Message;

/// The model, as the bytes of a file.
pub fn to_onnx(actor: &Actor, environment: &str, stochastic: bool) -> Vec<u8> {
    let program = Program::new(actor, stochastic);
    let actions = program.actions();
    let mut graph = GraphProto { name: "policy".into(), ..GraphProto::default() };
    graph.input.push(value("observation", program.observation_size));
    if stochastic {
        graph.input.push(value("noise", actions));
    }
    graph.output.push(value("action", actions));

    let mut seen = "observation".to_string();
    if let Some(normalizer) = &program.normalizer {
        for (name, values) in [("observation_center", normalizer.center()), ("observation_spread", normalizer.spread())]
        {
            graph.initializer.push(tensor(name, vec![values.len() as i64], values));
        }
        graph.scalar("observation_min", -Normalizer::LIMIT);
        graph.scalar("observation_max", Normalizer::LIMIT);
        let centered = graph.node("Sub", &[&seen, "observation_center"], "centered");
        let normalized = graph.node("Div", &[&centered, "observation_spread"], "normalized");
        seen = graph.node("Clip", &[&normalized, "observation_min", "observation_max"], "seen");
    }
    for (c, chain) in program.chains.iter().enumerate() {
        let mut x = seen.clone();
        for (l, layer) in chain.trunk.iter().enumerate() {
            x = graph.linear(&layer.name, &x, &layer.weight, &layer.bias);
            let activation = match program.activation {
                Activation::Relu => "Relu",
                Activation::Tanh => "Tanh",
            };
            x = graph.node(activation, &[&x], &format!("hidden_{c}_{l}"));
        }
        for head in &chain.heads {
            let _ = graph.linear(&head.name, &x, &head.weight, &head.bias);
        }
    }
    let mut u = "mean.output".to_string();
    if program.mean_form == Mean::Tanh {
        u = graph.node("Tanh", &[&u], "mean");
    }
    if stochastic {
        let log_std = match program.log_std_form {
            LogStd::Clamp { min, max } => {
                graph.scalar("log_std_min", min as f32);
                graph.scalar("log_std_max", max as f32);
                graph.node("Clip", &["log_std.output", "log_std_min", "log_std_max"], "log_std")
            }
            LogStd::Tanh { min, max } => {
                graph.scalar("log_std_half_range", (0.5 * (max - min)) as f32);
                graph.scalar("log_std_middle", (0.5 * (max + min)) as f32);
                let squashed = graph.node("Tanh", &["log_std.output"], "log_std_squashed");
                let scaled = graph.node("Mul", &[&squashed, "log_std_half_range"], "log_std_scaled");
                graph.node("Add", &[&scaled, "log_std_middle"], "log_std")
            }
        };
        let std = graph.node("Exp", &[&log_std], "std");
        let scaled_noise = graph.node("Mul", &[&std, "noise"], "scaled_noise");
        u = graph.node("Add", &[&u, &scaled_noise], "u");
    }
    let squashed = graph.node("Tanh", &[&u], "squashed");
    let half_range: Vec<f32> = program.low.iter().zip(&program.high).map(|(low, high)| 0.5 * (high - low)).collect();
    graph.scalar("one", 1.0);
    for (name, values) in [("half_range", &half_range), ("low", &program.low), ("high", &program.high)] {
        graph.initializer.push(tensor(name, vec![actions as i64], values));
    }
    let shifted = graph.node("Add", &[&squashed, "one"], "shifted");
    let scaled = graph.node("Mul", &[&shifted, "half_range"], "scaled");
    let placed = graph.node("Add", &[&scaled, "low"], "placed");
    // Rounding does not take an action beyond its bounds.
    let above = graph.node("Max", &[&placed, "low"], "above");
    graph.node("Min", &[&above, "high"], "action");

    let model = ModelProto {
        ir_version: 8,
        producer_name: "soft-actor-critic".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        doc_string: format!("The policy of a run on {environment}, with actions in the environment's units."),
        graph: Some(graph),
        opset_import: vec![OperatorSetIdProto { version: 13 }],
    };
    model.encode_to_vec()
}

impl GraphProto {
    /// Adds a node with one output, and returns that one's name.
    fn node(&mut self, operator: &str, inputs: &[&str], output: &str) -> String {
        self.node.push(NodeProto {
            input: inputs.iter().map(ToString::to_string).collect(),
            output: vec![output.into()],
            name: output.into(),
            op_type: operator.into(),
            attribute: Vec::new(),
        });
        output.into()
    }

    /// x·Wᵀ + b of a weight `[out, in]`.
    fn linear(&mut self, name: &str, x: &str, weight: &Array2<f32>, bias: &[f32]) -> String {
        let names = ["weight", "bias", "output"].map(|part| format!("{name}.{part}"));
        let shape = weight.shape().iter().map(|&side| side as i64).collect();
        let values: Vec<f32> = weight.iter().copied().collect();
        self.initializer.push(tensor(&names[0], shape, &values));
        self.initializer.push(tensor(&names[1], vec![bias.len() as i64], bias));
        let output = self.node("Gemm", &[x, &names[0], &names[1]], &names[2]);
        let node = self.node.last_mut().expect("it has just been pushed");
        node.attribute.push(AttributeProto { name: "transB".into(), i: 1, r#type: AttributeProto::INT });
        output
    }

    fn scalar(&mut self, name: &str, value: f32) {
        self.initializer.push(tensor(name, Vec::new(), &[value]));
    }
}

fn tensor(name: &str, dims: Vec<i64>, values: &[f32]) -> TensorProto {
    let raw_data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    TensorProto { dims, data_type: TensorProto::FLOAT, name: name.into(), raw_data }
}

/// An input or output `[batch, width]`.
fn value(name: &str, width: usize) -> ValueInfoProto {
    let dim = vec![
        Dimension { dim_value: None, dim_param: Some("batch".into()) },
        Dimension { dim_value: Some(width as i64), dim_param: None },
    ];
    let tensor_type = TensorTypeProto { elem_type: TensorProto::FLOAT, shape: Some(TensorShapeProto { dim }) };
    ValueInfoProto { name: name.into(), r#type: Some(TypeProto { tensor_type: Some(tensor_type) }) }
}

#[derive(Clone, PartialEq, Message)]
struct ModelProto {
    #[prost(int64, tag = "1")]
    ir_version: i64,
    #[prost(string, tag = "2")]
    producer_name: String,
    #[prost(string, tag = "3")]
    producer_version: String,
    #[prost(string, tag = "6")]
    doc_string: String,
    #[prost(message, optional, tag = "7")]
    graph: Option<GraphProto>,
    #[prost(message, repeated, tag = "8")]
    opset_import: Vec<OperatorSetIdProto>,
}

#[derive(Clone, PartialEq, Message)]
struct OperatorSetIdProto {
    #[prost(int64, tag = "2")]
    version: i64,
}

#[derive(Clone, PartialEq, Message)]
struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    node: Vec<NodeProto>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<TensorProto>,
    #[prost(message, repeated, tag = "11")]
    input: Vec<ValueInfoProto>,
    #[prost(message, repeated, tag = "12")]
    output: Vec<ValueInfoProto>,
}

#[derive(Clone, PartialEq, Message)]
struct NodeProto {
    #[prost(string, repeated, tag = "1")]
    input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    output: Vec<String>,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(string, tag = "4")]
    op_type: String,
    #[prost(message, repeated, tag = "5")]
    attribute: Vec<AttributeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct AttributeProto {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int64, tag = "3")]
    i: i64,
    #[prost(int32, tag = "20")]
    r#type: i32,
}

impl AttributeProto {
    const INT: i32 = 2;
}

#[derive(Clone, PartialEq, Message)]
struct TensorProto {
    #[prost(int64, repeated, tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(string, tag = "8")]
    name: String,
    #[prost(bytes = "vec", tag = "9")]
    raw_data: Vec<u8>,
}

impl TensorProto {
    const FLOAT: i32 = 1;
}

#[derive(Clone, PartialEq, Message)]
struct ValueInfoProto {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    r#type: Option<TypeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct TypeProto {
    #[prost(message, optional, tag = "1")]
    tensor_type: Option<TensorTypeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorTypeProto {
    #[prost(int32, tag = "1")]
    elem_type: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<TensorShapeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorShapeProto {
    #[prost(message, repeated, tag = "1")]
    dim: Vec<Dimension>,
}

#[derive(Clone, PartialEq, Message)]
struct Dimension {
    #[prost(int64, optional, tag = "1")]
    dim_value: Option<i64>,
    #[prost(string, optional, tag = "2")]
    dim_param: Option<String>,
}
