//! The little of the ONNX format that the generated models need. Field numbers are
//! those of onnx.proto.

use prost::Message;

const FLOAT: i32 = 1;
const IR_VERSION: i64 = 9;
const OPSET: i64 = 19;

#[derive(Clone, PartialEq, Message)]
struct ModelProto {
    #[prost(int64, tag = "1")]
    ir_version: i64,
    #[prost(string, tag = "2")]
    producer_name: String,
    #[prost(message, optional, tag = "7")]
    graph: Option<GraphProto>,
    #[prost(message, repeated, tag = "8")]
    opset_import: Vec<OperatorSetIdProto>,
}

#[derive(Clone, PartialEq, Message)]
struct OperatorSetIdProto {
    #[prost(string, tag = "1")]
    domain: String,
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
    #[prost(string, tag = "4")]
    op_type: String,
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
    shape: Option<ShapeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct ShapeProto {
    #[prost(message, repeated, tag = "1")]
    dim: Vec<DimensionProto>,
}

#[derive(Clone, PartialEq, Message)]
struct DimensionProto {
    #[prost(int64, optional, tag = "1")]
    dim_value: Option<i64>,
    #[prost(string, optional, tag = "2")]
    dim_param: Option<String>,
}

/// A chain of operators from `x` [-1, columns] to the last one's output.
#[derive(Debug, Default)]
pub struct Chain {
    nodes: Vec<NodeProto>,
    weights: Vec<TensorProto>,
}

/// What goes into the chain, and what its last output is called.
const INPUT: &str = "x";

impl Chain {
    /// Adds a weight that operators may name.
    pub fn weight(&mut self, name: &str, dims: &[usize], values: &[f32]) {
        self.weights.push(TensorProto {
            dims: dims.iter().map(|dim| *dim as i64).collect(),
            data_type: FLOAT,
            name: name.to_owned(),
            raw_data: values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        });
    }

    /// Adds an operator on what the last one gave, and on weights.
    pub fn then(&mut self, op_type: &str, weights: &[&str]) {
        let from = self.last_output();
        let inputs = std::iter::once(from).chain(weights.iter().map(|weight| (*weight).to_owned()));
        self.nodes.push(NodeProto {
            input: inputs.collect(),
            output: vec![format!("t{}", self.nodes.len())],
            op_type: op_type.to_owned(),
        });
    }

    fn last_output(&self) -> String {
        self.nodes.last().and_then(|node| node.output.first()).cloned().unwrap_or_else(|| INPUT.to_owned())
    }

    /// The file's bytes.
    pub fn into_model(self, name: &str, columns_in: usize, columns_out: usize) -> Vec<u8> {
        let output = self.last_output();
        let graph = GraphProto {
            node: self.nodes,
            name: name.to_owned(),
            initializer: self.weights,
            input: vec![rows_of(INPUT, columns_in)],
            output: vec![rows_of(&output, columns_out)],
        };
        let model = ModelProto {
            ir_version: IR_VERSION,
            producer_name: "starling-bench".to_owned(),
            graph: Some(graph),
            opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
        };
        model.encode_to_vec()
    }
}

fn rows_of(name: &str, columns: usize) -> ValueInfoProto {
    let any = DimensionProto { dim_value: None, dim_param: Some("rows".to_owned()) };
    let fixed = DimensionProto { dim_value: Some(columns as i64), dim_param: None };
    let shape = Some(ShapeProto { dim: vec![any, fixed] });
    let tensor_type = Some(TensorTypeProto { elem_type: FLOAT, shape });
    ValueInfoProto { name: name.to_owned(), r#type: Some(TypeProto { tensor_type }) }
}
