//! The tensors of a graph while it is read: constants, and steps of the network.

use std::sync::Arc;

use super::proto::shown;
use super::tensor::{Constant, size};

/// The widths of the layers: z, three hidden ones, the image.
pub const SIZES: [usize; 5] = [100, 32, 64, 128, 784];

/// A tensor of the graph.
#[derive(Clone)]
pub enum Value {
    Constant(Constant),
    Data(Data),
}

impl Value {
    pub fn shape(&self) -> &[usize] {
        match self {
            Value::Constant(constant) => &constant.shape,
            Value::Data(data) => &data.shape,
        }
    }
}

/// A tensor that depends on z.
#[derive(Clone)]
pub struct Data {
    pub shape: Vec<usize>,
    /// The dense layers between z and this tensor.
    pub layers: Vec<Arc<Dense>>,
    pub stage: Stage,
}

/// The last step of the network that a tensor has behind it.
#[derive(Clone, Copy, PartialEq)]
pub enum Stage {
    /// z in float64.
    DoubleZ,
    /// z, or the activations of the last of `layers`.
    Activations,
    /// The sums of the last of `layers`.
    Sums,
    /// The sums times 0.2. The larger of both is LeakyReLU.
    ScaledSums,
    /// Whether each sum is positive; if not `positive`, whether it is negative.
    Sign { positive: bool },
    /// tanh of the last layer's sums.
    Image,
}

/// A dense layer as the file has it.
#[derive(Clone)]
pub struct Dense {
    /// (I, O), or (O, I) if `transposed`.
    pub weight: Constant,
    pub transposed: bool,
    /// Multiplies the weight.
    pub alpha: f32,
    /// (O,), or one number for all outputs.
    pub bias: Option<Constant>,
    /// Multiplies the bias.
    pub beta: f32,
}

impl Data {
    /// The operator that the network needs next.
    pub fn expected(&self) -> &'static str {
        match self.stage {
            Stage::DoubleZ => "Cast to float32",
            Stage::Activations => "Gemm or MatMul",
            Stage::Sums if self.is_hidden_sums() => "LeakyRelu",
            Stage::Sums => "Tanh",
            Stage::ScaledSums | Stage::Sign { .. } => "Max or Where",
            Stage::Image => "the graph to end after Tanh",
        }
    }

    /// Whether these are the sums of a hidden layer.
    pub fn is_hidden_sums(&self) -> bool {
        self.stage == Stage::Sums && self.layers.len() + 1 < SIZES.len()
    }

    /// The same tensor after one more step.
    pub fn at(&self, stage: Stage) -> Value {
        Value::Data(Self { stage, ..self.clone() })
    }

    /// Whether both tensors come from the same sums.
    pub fn is_beside(&self, other: &Self) -> bool {
        self.shape == other.shape
            && self.layers.len() == other.layers.len()
            && self.layers.iter().zip(&other.layers).all(|(a, b)| Arc::ptr_eq(a, b))
    }

    /// This tensor in the shape that it has after an elementwise operator with a constant: one number, or one per unit.
    ///
    /// # Errors
    /// The constant has another shape.
    pub fn broadcast(&self, constant: &Constant) -> Result<Self, String> {
        let units = SIZES[self.layers.len()];
        let ones = constant.shape.iter().take_while(|&&n| n == 1).count();
        let own = &constant.shape[ones..];
        let fits = own.is_empty() || (self.shape.ends_with(own) && size(own)? == units);
        if !fits {
            return Err(format!("{}: shape [{units}] expected, {:?} found", shown(&constant.name), constant.shape));
        }
        let missing = constant.shape.len().saturating_sub(self.shape.len());
        Ok(Self { shape: [vec![1; missing], self.shape.clone()].concat(), ..self.clone() })
    }
}
