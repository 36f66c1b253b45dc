//! A tape of ONNX operators that can differentiate itself.
//!
//! Each operator below stands whole: its formula, its ONNX node and its backward rule. Backward rules are written
//! in the same operators, so a gradient is a part of the graph like any other and can be differentiated again.
//!
//! In the formulas dx is the gradient of the loss with respect to x. Shapes are fixed when the graph is built.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

pub mod onnx;

use onnx::{Attribute, Type};

/// A tensor in the [`Graph`] that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Var(usize);

/// Given the operator's output and that output's gradient, the gradient of each of its inputs, in order.
type Backward = Rc<dyn Fn(&mut Graph, Var, Var) -> Vec<Option<Var>>>;

struct Value {
    name: String,
    elem: Type,
    shape: Vec<usize>,
    origin: Origin,
}

enum Origin {
    Input,
    Constant(Vec<u8>),
    Node(usize),
}

struct Node {
    /// Empty for ONNX's own.
    domain: &'static str,
    op_type: &'static str,
    attributes: Vec<Attribute>,
    inputs: Vec<Var>,
    outputs: Vec<Var>,
    backward: Option<Backward>,
}

/// A graph under construction.
#[derive(Default)]
pub struct Graph {
    values: Vec<Value>,
    nodes: Vec<Node>,
    scalars: HashMap<u32, Var>,
    functions: BTreeMap<&'static str, onnx::Function>,
    names: HashSet<String>,
    scope: String,
    /// Whether rows are summed in a product with ones: CUDA's ReduceSum of many rows adds in no fixed order.
    pub sums_by_gemm: bool,
}

impl Graph {
    /// d loss / d w for each w of `wrt`, appended to the graph; `loss` is a scalar that depends on all of them.
    pub fn grad(&mut self, loss: Var, wrt: &[Var]) -> Vec<Var> {
        assert!(self.shape(loss).is_empty(), "{}: a loss is a scalar", self.values[loss.0].name);
        let mut depends = vec![false; loss.0 + 1];
        wrt.iter().for_each(|w| depends[w.0] = true);
        for v in 0..=loss.0 {
            if let Origin::Node(n) = self.values[v].origin {
                let node = &self.nodes[n];
                depends[v] |= node.backward.is_some() && node.inputs.iter().any(|i| depends[i.0]);
            }
        }
        let mut gradient: Vec<Option<Var>> = vec![None; loss.0 + 1];
        gradient[loss.0] = Some(self.scalar(1.0));
        for v in (0..=loss.0).rev().filter(|&v| depends[v]) {
            let (Some(dy), Origin::Node(n)) = (gradient[v], &self.values[v].origin) else { continue };
            let n = *n;
            let Some(backward) = self.nodes[n].backward.clone() else { continue };
            let inputs = self.nodes[n].inputs.clone();
            for (x, dx) in inputs.into_iter().zip(backward(self, Var(v), dy)) {
                let Some(dx) = dx.filter(|_| depends[x.0]) else { continue };
                gradient[x.0] = Some(match gradient[x.0] {
                    Some(sum) => self.add(sum, dx),
                    None => dx,
                });
            }
        }
        wrt.iter().map(|w| gradient[w.0].expect("the loss depends on every w")).collect()
    }

    /// Names of what follows start with `scope`, so that Netron shows where a node belongs.
    pub fn scope(&mut self, scope: &str) {
        self.scope = scope.into();
    }

    pub fn shape(&self, x: Var) -> &[usize] {
        &self.values[x.0].shape
    }

    fn elem(&self, x: Var) -> Type {
        self.values[x.0].elem
    }

    // ---- leaves

    /// A tensor that the caller binds.
    pub fn input(&mut self, name: &str, elem: Type, shape: &[usize]) -> Var {
        self.value(name.into(), elem, shape, Origin::Input)
    }

    /// A tensor stored in the file.
    pub fn constant(&mut self, name: &str, shape: &[usize], data: &[f32]) -> Var {
        assert_eq!(shape.iter().product::<usize>(), data.len(), "{name}");
        let bytes = data.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.value(name.into(), Type::F32, shape, Origin::Constant(bytes))
    }

    /// The f32 scalar x; asked for twice, stored once.
    pub fn scalar(&mut self, x: f32) -> Var {
        if let Some(&known) = self.scalars.get(&x.to_bits()) {
            return known;
        }
        let v = self.constant(&format!("{x:?}"), &[], &[x]);
        self.scalars.insert(x.to_bits(), v);
        v
    }

    fn ints(&mut self, name: &str, data: &[i64]) -> Var {
        let bytes = data.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.value(name.into(), Type::I64, &[data.len()], Origin::Constant(bytes))
    }

    // ---- arithmetic; the two sides have one shape, or one of them is broadcast (NumPy's rule)

    /// y = a + b.   da = dy, db = dy
    pub fn add(&mut self, a: Var, b: Var) -> Var {
        self.binary("Add", a, b, |_, _, _, _, dy| (dy, dy))
    }

    /// y = a − b.   da = dy, db = −dy
    pub fn sub(&mut self, a: Var, b: Var) -> Var {
        self.binary("Sub", a, b, |g, _, _, _, dy| (dy, g.neg(dy)))
    }

    /// y = a · b.   da = dy · b, db = dy · a
    pub fn mul(&mut self, a: Var, b: Var) -> Var {
        // A product stretches its sides by itself, and has no use for a one.
        let a = self.unexpanded(a, b);
        let b = self.unexpanded(b, a);
        match self.scalars.get(&1f32.to_bits()) {
            Some(&one) if one == b => return a,
            Some(&one) if one == a => return b,
            _ => {}
        }
        self.binary("Mul", a, b, |g, a, b, _, dy| (g.mul(dy, b), g.mul(dy, a)))
    }

    /// y = a / b.   da = dy / b, db = −dy · y / b
    pub fn div(&mut self, a: Var, b: Var) -> Var {
        self.binary("Div", a, b, |g, _, b, y, dy| {
            let da = g.div(dy, b);
            let ny = g.neg(y);
            (da, g.mul(da, ny))
        })
    }

    /// x / c, for a number c.
    pub fn div_by(&mut self, x: Var, c: f32) -> Var {
        let c = self.scalar(c);
        self.div(x, c)
    }

    /// y = −x.   dx = −dy
    pub fn neg(&mut self, x: Var) -> Var {
        self.unary("Neg", vec![], x, |g, _, _, dy| g.neg(dy))
    }

    /// y = √x.   dx = dy / 2y
    pub fn sqrt(&mut self, x: Var) -> Var {
        self.unary("Sqrt", vec![], x, |g, _, y, dy| {
            let two = g.scalar(2.0);
            let y2 = g.mul(y, two);
            g.div(dy, y2)
        })
    }

    // ---- layers

    /// y = a b + c, where a (M, K) and b (K, N) may be given transposed and c (N,) is added to each row.
    ///
    /// da = dy bᵀ, db = aᵀ dy, dc = Σ rows of dy
    pub fn gemm(&mut self, a: Var, b: Var, c: Option<Var>, trans_a: bool, trans_b: bool) -> Var {
        let side = |s: &[usize], t: bool| if t { (s[1], s[0]) } else { (s[0], s[1]) };
        let ((m, k), (k2, n)) = (side(self.shape(a), trans_a), side(self.shape(b), trans_b));
        assert_eq!(k, k2, "gemm: {:?} against {:?}", self.shape(a), self.shape(b));
        let mut attributes = vec![];
        attributes.extend(trans_a.then(|| Attribute::int("transA", 1)));
        attributes.extend(trans_b.then(|| Attribute::int("transB", 1)));
        let mut inputs = vec![a, b];
        inputs.extend(c);
        self.node("Gemm", attributes, inputs, Type::F32, &[m, n], move |g, _, dy| {
            let da = if trans_a { g.gemm(b, dy, None, trans_b, true) } else { g.gemm(dy, b, None, false, !trans_b) };
            let db = if trans_b { g.gemm(dy, a, None, true, trans_a) } else { g.gemm(a, dy, None, !trans_a, false) };
            let dc = c.map(|_| g.sum_rows(dy));
            vec![Some(da), Some(db), dc]
        })
    }

    /// y = x where x > 0, else slope · x.   dx = dy where x > 0, else slope · dy
    pub fn leaky_relu(&mut self, x: Var, slope: f32) -> Var {
        self.unary("LeakyRelu", vec![Attribute::float("alpha", slope)], x, move |g, x, _, dy| {
            let (zero, leak) = (g.scalar(0.0), g.scalar(slope));
            let (positive, leaked) = (g.greater(x, zero), g.mul(dy, leak));
            g.r#where(positive, dy, leaked)
        })
    }

    /// y = x where x > 0, else 0.   dx = dy where x > 0, else 0
    pub fn relu(&mut self, x: Var) -> Var {
        self.unary("Relu", vec![], x, |g, x, _, dy| {
            let zero = g.scalar(0.0);
            let positive = g.greater(x, zero);
            g.r#where(positive, dy, zero)
        })
    }

    /// y = tanh x.   dx = dy · (1 − y²)
    pub fn tanh(&mut self, x: Var) -> Var {
        self.unary("Tanh", vec![], x, |g, _, y, dy| {
            let (one, y2) = (g.scalar(1.0), g.mul(y, y));
            let slope = g.sub(one, y2);
            g.mul(dy, slope)
        })
    }

    /// y = 1 / (1 + e⁻ˣ).   dx = dy · y (1 − y)
    pub fn sigmoid(&mut self, x: Var) -> Var {
        self.unary("Sigmoid", vec![], x, |g, _, y, dy| {
            let one = g.scalar(1.0);
            let rest = g.sub(one, y);
            let slope = g.mul(y, rest);
            g.mul(dy, slope)
        })
    }

    /// y = ln(1 + eˣ).   dx = dy · sigmoid x
    pub fn softplus(&mut self, x: Var) -> Var {
        self.unary("Softplus", vec![], x, |g, x, _, dy| {
            let slope = g.sigmoid(x);
            g.mul(dy, slope)
        })
    }

    /// y = eˣ.   dx = dy · y
    pub fn exp(&mut self, x: Var) -> Var {
        self.unary("Exp", vec![], x, |g, _, y, dy| g.mul(dy, y))
    }

    /// y = x − ln Σ eˣ along the last axis of x (B, C).   dx = dy − eʸ · Σ dy
    pub fn log_softmax(&mut self, x: Var) -> Var {
        self.unary("LogSoftmax", vec![Attribute::int("axis", 1)], x, |g, _, y, dy| {
            let (probability, total) = (g.exp(y), g.sum(dy, &[1], true));
            let expected = g.mul(probability, total);
            g.sub(dy, expected)
        })
    }

    // ---- images

    /// y (B, O, H', W') = the correlation of x (B, I, H, W), in a frame of `pad` zeros, with w (O, I, K, K), plus c (O,).
    ///
    /// dx = dy, spread by w; dw = the correlation of x with dy, summed over B; dc = Σ dy over all but O
    pub fn conv(&mut self, x: Var, w: Var, c: Option<Var>, pad: usize) -> Var {
        let (sx, sw) = (self.shape(x), self.shape(w));
        assert_eq!(sx[1], sw[1], "conv: {sx:?} with {sw:?}");
        let shape = [sx[0], sw[0], sx[2] + 2 * pad + 1 - sw[2], sx[3] + 2 * pad + 1 - sw[3]];
        let mut inputs = vec![x, w];
        inputs.extend(c);
        self.node(
            "Conv",
            vec![Attribute::ints("pads", &[pad as i64; 4])],
            inputs,
            Type::F32,
            &shape,
            move |g, _, dy| {
                let (dx, dw) = (g.conv_transpose(dy, w, pad), g.conv_weight(x, dy, pad));
                vec![Some(dx), Some(dw), c.map(|_| g.sum(dy, &[0, 2, 3], false))]
            },
        )
    }

    /// y (B, I, H, W) = x (B, O, H', W'), spread by w (O, I, K, K): what makes the gradient of [`Self::conv`]'s input.
    ///
    /// dx = the correlation of dy with w; dw = that of dy with x, summed over B
    fn conv_transpose(&mut self, x: Var, w: Var, pad: usize) -> Var {
        let (sx, sw) = (self.shape(x), self.shape(w));
        let shape = [sx[0], sw[1], sx[2] + sw[2] - 1 - 2 * pad, sx[3] + sw[3] - 1 - 2 * pad];
        let attributes = vec![Attribute::ints("pads", &[pad as i64; 4])];
        self.node("ConvTranspose", attributes, vec![x, w], Type::F32, &shape, move |g, _, dy| {
            vec![Some(g.conv(dy, w, None, pad)), Some(g.conv_weight(dy, x, pad))]
        })
    }

    /// The gradient of [`Self::conv`]'s weights: a correlation in which batch and channels have changed places.
    fn conv_weight(&mut self, x: Var, dy: Var, pad: usize) -> Var {
        let (x, dy) = (self.transpose(x), self.transpose(dy));
        let dw = self.conv(x, dy, None, pad);
        self.transpose(dw)
    }

    /// y (B, C, H/2, W/2) = the largest of each 2 × 2 pixels of x (B, C, H, W).   dx = dy at the largest, else 0
    pub fn max_pool2(&mut self, x: Var) -> Var {
        let [b, c, h, w] = *self.shape(x) else { panic!("max_pool2: {:?}", self.shape(x)) };
        let attributes = vec![Attribute::ints("kernel_shape", &[2, 2]), Attribute::ints("strides", &[2, 2])];
        self.node("MaxPool", attributes, vec![x], Type::F32, &[b, c, h / 2, w / 2], move |g, y, dy| {
            let (one, four) = ([b, c, h / 2, 1, w / 2, 1], [b, c, h / 2, 2, w / 2, 2]);
            let (x, y, dy) = (g.reshape(x, &four), g.reshape(y, &one), g.reshape(dy, &one));
            let (zero, below) = (g.scalar(0.0), g.greater(y, x));
            let dx = g.r#where(below, zero, dy);
            vec![Some(g.reshape(dx, &[b, c, h, w]))]
        })
    }

    /// y = x with its first two axes in each other's place.   dx = dy, likewise
    fn transpose(&mut self, x: Var) -> Var {
        let mut shape = self.shape(x).to_vec();
        shape.swap(0, 1);
        let mut perm: Vec<i64> = (0..shape.len() as i64).collect();
        perm.swap(0, 1);
        let attributes = vec![Attribute::ints("perm", &perm)];
        self.node("Transpose", attributes, vec![x], Type::F32, &shape, |g, _, dy| vec![Some(g.transpose(dy))])
    }

    // ---- sums

    /// y = Σ x over `axes`, which stay as ones where `keep` says so.   dx = dy, spread over them
    pub fn sum(&mut self, x: Var, axes: &[usize], keep: bool) -> Var {
        let shape = self.shape(x).to_vec();
        if self.sums_by_gemm && matches!(shape[..], [_, 1]) && axes == [0, 1] && !keep {
            let total = self.sum_rows(x);
            return self.reshape(total, &[]);
        }
        let kept: Vec<usize> = (0..shape.len()).map(|i| if axes.contains(&i) { 1 } else { shape[i] }).collect();
        let bare = (0..shape.len()).filter(|i| !axes.contains(i)).map(|i| shape[i]).collect();
        let list = self.ints("axes", &axes.iter().map(|&a| a as i64).collect::<Vec<_>>());
        let out = if keep { kept.clone() } else { bare };
        let attributes = vec![Attribute::int("keepdims", keep as i64)];
        self.node("ReduceSum", attributes, vec![x, list], Type::F32, &out, move |g, _, dy| {
            let dy = g.reshape(dy, &kept);
            vec![Some(g.expand(dy, &shape)), None]
        })
    }

    /// Σ over the rows of x (B, N): the gradient of what was added to each.
    fn sum_rows(&mut self, x: Var) -> Var {
        let [rows, columns] = *self.shape(x) else { panic!("sum_rows: {:?}", self.shape(x)) };
        if !self.sums_by_gemm {
            return self.sum(x, &[0], false);
        }
        let ones = self.constant("ones", &[1, rows], &vec![1.0; rows]);
        let sum = self.gemm(ones, x, None, false, false);
        self.reshape(sum, &[columns])
    }

    // ---- shape

    /// y = x in another shape of as many elements.   dx = dy, back in the first
    pub fn reshape(&mut self, x: Var, shape: &[usize]) -> Var {
        let old = self.shape(x).to_vec();
        if old == shape {
            return x;
        }
        let mut to: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
        if shape.first() == old.first() && !shape.is_empty() {
            to[0] = 0; // ONNX for "as it was", for a first dimension that is left to the caller
        }
        let to = self.ints("shape", &to);
        let elem = self.values[x.0].elem;
        self.node("Reshape", vec![], vec![x, to], elem, shape, move |g, _, dy| vec![Some(g.reshape(dy, &old)), None])
    }

    /// y = x repeated to `shape` along its axes of length 1.   dx = Σ dy over them
    pub fn expand(&mut self, x: Var, shape: &[usize]) -> Var {
        let old = self.shape(x).to_vec();
        if old == shape {
            return x;
        }
        let to = self.ints("shape", &shape.iter().map(|&n| n as i64).collect::<Vec<_>>());
        self.node("Expand", vec![], vec![x, to], Type::F32, shape, move |g, _, dy| {
            vec![Some(g.unbroadcast(dy, &old)), None]
        })
    }

    /// y = the rows of a, then the rows of b.   da and db = those rows of dy
    pub fn concat_rows(&mut self, a: Var, b: Var) -> Var {
        let (m, n) = (self.shape(a)[0], self.shape(b)[0]);
        let mut shape = self.shape(a).to_vec();
        shape[0] = m + n;
        self.node("Concat", vec![Attribute::int("axis", 0)], vec![a, b], Type::F32, &shape, move |g, _, dy| {
            vec![Some(g.rows(dy, 0, m)), Some(g.rows(dy, m, m + n))]
        })
    }

    /// y = rows from ≤ r < to of x.   dx = dy in those rows, 0 in the others
    pub fn rows(&mut self, x: Var, from: usize, to: usize) -> Var {
        let mut shape = self.shape(x).to_vec();
        let all = shape[0];
        shape[0] = to - from;
        let inputs = vec![x, self.ints("from", &[from as i64]), self.ints("to", &[to as i64]), self.ints("axis", &[0])];
        self.node("Slice", vec![], inputs, Type::F32, &shape, move |g, _, dy| {
            let mut dx = dy;
            for (count, first) in [(from, true), (all - to, false)] {
                if count > 0 {
                    let mut shape = g.shape(dy).to_vec();
                    shape[0] = count;
                    let (zero, ones) = (g.scalar(0.0), vec![1; shape.len()]);
                    let zero = g.reshape(zero, &ones);
                    let zeros = g.expand(zero, &shape);
                    dx = if first { g.concat_rows(zeros, dx) } else { g.concat_rows(dx, zeros) };
                }
            }
            vec![Some(dx), None, None, None]
        })
    }

    // ---- choice and data: no gradient flows to conditions, indices and bytes

    /// y = a where the condition holds, else b.   da = dy where it holds, else 0; db the other way round
    pub fn r#where(&mut self, condition: Var, a: Var, b: Var) -> Var {
        let shape = broadcast(self.shape(a), self.shape(b));
        let shape = broadcast(&shape, self.shape(condition));
        let (sa, sb) = (self.shape(a).to_vec(), self.shape(b).to_vec());
        self.node("Where", vec![], vec![condition, a, b], Type::F32, &shape, move |g, _, dy| {
            let zero = g.scalar(0.0);
            let (da, db) = (g.r#where(condition, dy, zero), g.r#where(condition, zero, dy));
            vec![None, Some(g.unbroadcast(da, &sa)), Some(g.unbroadcast(db, &sb))]
        })
    }

    /// x, for a part of the graph that gradients shall not leave.
    pub fn detach(&mut self, x: Var) -> Var {
        let (elem, shape) = (self.values[x.0].elem, self.shape(x).to_vec());
        self.leaf_node("Identity", vec![], vec![x], elem, &[&shape])[0]
    }

    /// a > b, as a condition.
    pub fn greater(&mut self, a: Var, b: Var) -> Var {
        let shape = broadcast(self.shape(a), self.shape(b));
        self.leaf_node("Greater", vec![], vec![a, b], Type::Bool, &[&shape])[0]
    }

    /// x, at least `min` and at most `max`, two scalars.
    pub fn clip(&mut self, x: Var, min: Var, max: Var) -> Var {
        let shape = self.shape(x).to_vec();
        self.leaf_node("Clip", vec![], vec![x, min, max], Type::F32, &[&shape])[0]
    }

    /// Rows of `data`, picked by `index` (B,).
    pub fn gather(&mut self, data: Var, index: Var) -> Var {
        let mut shape = self.shape(data).to_vec();
        shape[0] = self.shape(index)[0];
        let elem = self.values[data.0].elem;
        self.leaf_node("Gather", vec![Attribute::int("axis", 0)], vec![data, index], elem, &[&shape])[0]
    }

    /// Columns from ≤ c < to of x (B, C).
    pub fn columns(&mut self, x: Var, from: usize, to: usize) -> Var {
        let (elem, rows) = (self.values[x.0].elem, self.shape(x)[0]);
        let inputs = vec![x, self.ints("from", &[from as i64]), self.ints("to", &[to as i64]), self.ints("axis", &[1])];
        self.leaf_node("Slice", vec![], inputs, elem, &[&[rows, to - from]])[0]
    }

    /// x in another number type.
    pub fn cast(&mut self, x: Var, to: Type) -> Var {
        let shape = self.shape(x).to_vec();
        self.leaf_node("Cast", vec![Attribute::int("to", to as i64)], vec![x], to, &[&shape])[0]
    }

    /// A vector cut into consecutive tensors of these shapes.
    pub fn cut(&mut self, x: Var, shapes: &[Vec<usize>]) -> Vec<Var> {
        let row = self.reshape(x, &[1, self.shape(x)[0]]);
        let lens: Vec<usize> = shapes.iter().map(|shape| shape.iter().product()).collect();
        let pieces = self.split_columns(row, &lens);
        pieces.into_iter().zip(shapes).map(|(piece, shape)| self.reshape(piece, shape)).collect()
    }

    /// x (R, C) cut into consecutive pieces (R, width): by Splits into at most four, of which the last is cut on. On a GPU each
    /// is one kernel, where a Split into more is a kernel and four copies from the host.
    pub fn split_columns(&mut self, x: Var, widths: &[usize]) -> Vec<Var> {
        let (rows, elem) = (self.shape(x)[0], self.elem(x));
        let (mut rest, mut pieces) = (x, vec![]);
        while pieces.len() < widths.len() {
            let left = &widths[pieces.len()..];
            let (now, on) = left.split_at(if left.len() > 4 { 3 } else { left.len() });
            let on = (!on.is_empty()).then(|| on.iter().sum());
            let shapes: Vec<[usize; 2]> = now.iter().copied().chain(on).map(|width| [rows, width]).collect();
            let sizes = self.ints("widths", &shapes.iter().map(|shape| shape[1] as i64).collect::<Vec<_>>());
            let shapes: Vec<&[usize]> = shapes.iter().map(|shape| &shape[..]).collect();
            let parts = self.leaf_node("Split", vec![Attribute::int("axis", 1)], vec![rest, sizes], elem, &shapes);
            pieces.extend(&parts[..now.len()]);
            rest = parts[parts.len() - 1];
        }
        pieces
    }

    /// Tensors joined to one vector, each row-major.
    pub fn join(&mut self, tensors: &[Var]) -> Var {
        let flat: Vec<Var> = tensors.iter().map(|&x| self.reshape(x, &[self.shape(x).iter().product()])).collect();
        let len = flat.iter().map(|&x| self.shape(x)[0]).sum();
        self.leaf_node("Concat", vec![Attribute::int("axis", 0)], flat, Type::F32, &[&[len]])[0]
    }

    /// Matrices with the same number of rows, side by side.
    pub fn concat_columns(&mut self, matrices: &[Var]) -> Var {
        let (rows, elem) = (self.shape(matrices[0])[0], self.elem(matrices[0]));
        let columns = matrices.iter().map(|&x| self.shape(x)[1]).sum();
        let attributes = vec![Attribute::int("axis", 1)];
        self.leaf_node("Concat", attributes, matrices.to_vec(), elem, &[&[rows, columns]])[0]
    }

    // ---- ours

    /// `body` of `inputs`, given by name, as one node of the operator `op_type` of our own domain. The file carries the body
    /// as that operator's function, so that it runs where no kernel of ours is registered. The body's operators must not
    /// depend on shapes, for all nodes of one type share it. No gradient passes.
    pub fn fused(
        &mut self,
        op_type: &'static str,
        inputs: &[(&str, Var)],
        body: impl FnOnce(&mut Graph, &[Var]) -> Vec<(&'static str, Var)>,
    ) -> Vec<Var> {
        let inner = &mut Graph::default();
        let parameters: Vec<Var> =
            (inputs.iter()).map(|(name, x)| inner.input(name, self.values[x.0].elem, self.shape(*x))).collect();
        let results = body(inner, &parameters);
        let shapes: Vec<&[usize]> = results.iter().map(|(_, y)| inner.shape(*y)).collect();
        let inputs = inputs.iter().map(|(_, x)| *x).collect();
        let outputs = self.leaf_node(op_type, vec![], inputs, Type::F32, &shapes);
        self.nodes.last_mut().expect("just made").domain = onnx::DOMAIN;
        self.functions.entry(op_type).or_insert_with(|| {
            let named: Vec<(Var, String)> = results.iter().map(|(name, y)| (*y, name.to_string())).collect();
            inner.to_function(op_type, &named)
        });
        outputs
    }

    fn to_function(&self, name: &str, outputs: &[(Var, String)]) -> onnx::Function {
        let model = self.to_model(name, outputs, None);
        let graph = model.graph.expect("a model has a graph");
        let constants = graph.initializer.into_iter().map(|tensor| onnx::Node {
            output: vec![tensor.name.clone()],
            op_type: "Constant".into(),
            attribute: vec![Attribute::tensor("value", tensor)],
            ..Default::default()
        });
        onnx::Function {
            name: name.into(),
            input: graph.input.into_iter().map(|input| input.name).collect(),
            output: graph.output.into_iter().map(|output| output.name).collect(),
            node: constants.chain(graph.node).collect(),
            opset_import: model.opset_import,
            domain: onnx::DOMAIN.into(),
        }
    }

    // ---- out

    /// The model that computes `outputs`, with only the nodes that they need. The first dimension of inputs and
    /// outputs is left to the caller under the name `free`, where one is given; the graph must not depend on it.
    pub fn to_model(&self, name: &str, outputs: &[(Var, String)], free: Option<&str>) -> onnx::Model {
        let mut needed = vec![false; self.values.len()];
        outputs.iter().for_each(|(v, _)| needed[v.0] = true);
        let mut live = vec![false; self.nodes.len()];
        for (n, node) in self.nodes.iter().enumerate().rev() {
            live[n] = node.outputs.iter().any(|o| needed[o.0]);
            if live[n] {
                node.inputs.iter().for_each(|i| needed[i.0] = true);
            }
        }
        // An output takes its own name where it is born; one that is an input, or has two names, needs a copy.
        let mut names: Vec<&str> = self.values.iter().map(|v| v.name.as_str()).collect();
        let mut copies = vec![];
        let mut taken = vec![false; self.values.len()];
        for (v, output) in outputs {
            let born = matches!(self.values[v.0].origin, Origin::Node(_));
            if born && !std::mem::replace(&mut taken[v.0], true) {
                names[v.0] = output;
            } else {
                copies.push((*v, output));
            }
        }
        let text = |vars: &[Var]| vars.iter().map(|v| names[v.0].to_string()).collect::<Vec<_>>();
        let mut nodes: Vec<onnx::Node> = (self.nodes.iter().enumerate().filter(|(n, _)| live[*n]))
            .map(|(_, node)| onnx::Node {
                input: text(&node.inputs),
                output: text(&node.outputs),
                name: names[node.outputs[0].0].into(),
                op_type: node.op_type.into(),
                attribute: node.attributes.clone(),
                domain: node.domain.into(),
            })
            .collect();
        nodes.extend(copies.into_iter().map(|(v, output)| onnx::Node {
            input: text(&[v]),
            output: vec![output.clone()],
            name: output.clone(),
            op_type: "Identity".into(),
            ..Default::default()
        }));
        let info = |v: &Value, name: &str| onnx::ValueInfo::tensor(name, v.elem, &v.shape, free);
        let mut graph = onnx::GraphProto { node: nodes, name: name.into(), ..Default::default() };
        for value in self.values.iter().zip(&needed).filter_map(|(value, needed)| needed.then_some(value)) {
            match &value.origin {
                Origin::Input => graph.input.push(info(value, &value.name)),
                Origin::Constant(bytes) => graph.initializer.push(onnx::Tensor {
                    dims: value.shape.iter().map(|&n| n as i64).collect(),
                    data_type: value.elem as i32,
                    name: value.name.clone(),
                    raw_data: bytes.clone(),
                }),
                Origin::Node(_) => {}
            }
        }
        graph.output = outputs.iter().map(|(v, name)| info(&self.values[v.0], name)).collect();
        let functions: Vec<onnx::Function> = self.functions.values().cloned().collect();
        let mut opset_import = vec![onnx::OperatorSetId { domain: String::new(), version: onnx::OPSET }];
        if !functions.is_empty() {
            opset_import.push(onnx::OperatorSetId { domain: onnx::DOMAIN.into(), version: 1 });
        }
        onnx::Model {
            ir_version: onnx::IR_VERSION,
            producer_name: "trainer".into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            graph: Some(graph),
            opset_import,
            functions,
            ..Default::default()
        }
    }

    // ---- how operators are recorded

    /// A name that is taken gets a number, for ONNX wants each only once.
    fn value(&mut self, name: String, elem: Type, shape: &[usize], origin: Origin) -> Var {
        let name = if self.names.insert(name.clone()) { name } else { format!("{name}_{}", self.values.len()) };
        self.values.push(Value { name, elem, shape: shape.into(), origin });
        Var(self.values.len() - 1)
    }

    fn record(
        &mut self,
        op_type: &'static str,
        attributes: Vec<Attribute>,
        inputs: Vec<Var>,
        elem: Type,
        shapes: &[&[usize]],
        backward: Option<Backward>,
    ) -> Vec<Var> {
        let node = self.nodes.len();
        let name = format!("{}{op_type}", self.scope);
        let outputs: Vec<Var> =
            shapes.iter().map(|shape| self.value(name.clone(), elem, shape, Origin::Node(node))).collect();
        self.nodes.push(Node { domain: "", op_type, attributes, inputs, outputs: outputs.clone(), backward });
        outputs
    }

    fn node(
        &mut self,
        op_type: &'static str,
        attributes: Vec<Attribute>,
        inputs: Vec<Var>,
        elem: Type,
        shape: &[usize],
        backward: impl Fn(&mut Graph, Var, Var) -> Vec<Option<Var>> + 'static,
    ) -> Var {
        self.record(op_type, attributes, inputs, elem, &[shape], Some(Rc::new(backward)))[0]
    }

    /// A node that gradients do not pass.
    fn leaf_node(
        &mut self,
        op_type: &'static str,
        attributes: Vec<Attribute>,
        inputs: Vec<Var>,
        elem: Type,
        shapes: &[&[usize]],
    ) -> Vec<Var> {
        self.record(op_type, attributes, inputs, elem, shapes, None)
    }

    /// An elementwise operator of one tensor; `backward(g, x, y, dy)` gives dx.
    fn unary(
        &mut self,
        op_type: &'static str,
        attributes: Vec<Attribute>,
        x: Var,
        backward: impl Fn(&mut Graph, Var, Var, Var) -> Var + 'static,
    ) -> Var {
        let (elem, shape) = (self.values[x.0].elem, self.shape(x).to_vec());
        self.node(op_type, attributes, vec![x], elem, &shape, move |g, y, dy| vec![Some(backward(g, x, y, dy))])
    }

    /// An elementwise operator of two tensors; `backward(g, a, b, y, dy)` gives (da, db) before broadcasting is undone.
    fn binary(
        &mut self,
        op_type: &'static str,
        a: Var,
        b: Var,
        backward: impl Fn(&mut Graph, Var, Var, Var, Var) -> (Var, Var) + 'static,
    ) -> Var {
        let (sa, sb) = (self.shape(a).to_vec(), self.shape(b).to_vec());
        let elem = self.values[a.0].elem;
        self.node(op_type, vec![], vec![a, b], elem, &broadcast(&sa, &sb), move |g, y, dy| {
            let (da, db) = backward(g, a, b, y, dy);
            vec![Some(g.unbroadcast(da, &sa)), Some(g.unbroadcast(db, &sb))]
        })
    }

    /// What [`Self::expand`] made `x` of, where `other` stretches it as far by itself.
    fn unexpanded(&self, x: Var, other: Var) -> Var {
        let Origin::Node(n) = self.values[x.0].origin else { return x };
        let Node { op_type, inputs, .. } = &self.nodes[n];
        let stretches = || broadcast(self.shape(inputs[0]), self.shape(other)) == self.shape(x);
        if *op_type == "Expand" && stretches() { inputs[0] } else { x }
    }

    /// Sums a gradient over the axes along which its tensor, of this shape, had been repeated.
    fn unbroadcast(&mut self, dy: Var, shape: &[usize]) -> Var {
        let from = self.shape(dy).to_vec();
        let missing = from.len() - shape.len();
        let axes: Vec<usize> =
            (0..from.len()).filter(|&i| i < missing || (shape[i - missing] == 1 && from[i] != 1)).collect();
        let sum = if axes.is_empty() { dy } else { self.sum(dy, &axes, true) };
        self.reshape(sum, shape)
    }
}

/// NumPy's rule: shapes are aligned at their last axis, and ones stretch.
fn broadcast(a: &[usize], b: &[usize]) -> Vec<usize> {
    let rank = a.len().max(b.len());
    let at = |s: &[usize], i: usize| if i + s.len() < rank { 1 } else { s[i + s.len() - rank] };
    (0..rank)
        .map(|i| {
            let (m, n) = (at(a, i), at(b, i));
            assert!(m == n || m == 1 || n == 1, "{a:?} and {b:?} do not broadcast");
            m.max(n)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Device;
    use crate::ort::OnnxRuntime;

    type Rule = fn(&mut Graph, Var) -> Var;

    /// Every operator with a backward rule, in each of its forms, as a function of x (3, 4).
    #[rustfmt::skip]
    const RULES: &[(&str, Rule)] = &[
        ("add",                |g, x| { let b = g.tanh(x); g.add(x, b) }),
        ("add, broadcast",     |g, x| { let b = g.sum(x, &[0], false); g.add(x, b) }),
        ("sub, broadcast",     |g, x| { let b = g.sum(x, &[1], true); g.sub(b, x) }),
        ("mul",                |g, x| { let b = g.tanh(x); g.mul(x, b) }),
        ("div",                |g, x| { let b = g.softplus(x); g.div(x, b) }),
        ("neg",                |g, x| g.neg(x)),
        ("sqrt",               |g, x| { let p = g.softplus(x); g.sqrt(p) }),
        ("gemm",               |g, x| { let b = g.reshape(x, &[4, 3]); g.gemm(x, b, None, false, false) }),
        ("gemm with bias",     |g, x| { let (b, c) = (g.reshape(x, &[4, 3]), g.sum(x, &[1], false));
                                        g.gemm(x, b, Some(c), false, false) }),
        ("gemm, transA",       |g, x| { let b = g.tanh(x); g.gemm(x, b, None, true, false) }),
        ("gemm, transB",       |g, x| { let b = g.tanh(x); g.gemm(x, b, None, false, true) }),
        ("gemm, both",         |g, x| { let b = g.reshape(x, &[4, 3]); g.gemm(x, b, None, true, true) }),
        ("leaky_relu",         |g, x| g.leaky_relu(x, 0.2)),
        ("relu",               |g, x| g.relu(x)),
        ("tanh",               |g, x| g.tanh(x)),
        ("sigmoid",            |g, x| g.sigmoid(x)),
        ("softplus",           |g, x| g.softplus(x)),
        ("exp",                |g, x| g.exp(x)),
        ("log_softmax",        |g, x| g.log_softmax(x)),
        ("conv",               |g, x| { let (t, p) = (g.tanh(x), g.softplus(x)); let (w, c) = (g.reshape(t, &[3, 1, 2, 2]), g.sum(p, &[1], false));
                                        let x = g.reshape(x, &[2, 1, 2, 3]); g.conv(x, w, Some(c), 1) }),
        ("conv_transpose",     |g, x| { let t = g.tanh(x); let w = g.reshape(t, &[1, 3, 2, 2]); let x = g.reshape(x, &[2, 1, 3, 2]);
                                        g.conv_transpose(x, w, 1) }),
        ("max_pool2",          |g, x| { let x = g.reshape(x, &[1, 3, 2, 2]); g.max_pool2(x) }),
        ("transpose",          |g, x| g.transpose(x)),
        ("sum",                |g, x| g.sum(x, &[0], false)),
        ("reshape",            |g, x| g.reshape(x, &[2, 6])),
        ("expand",             |g, x| { let c = g.reshape(x, &[3, 1, 4]); g.expand(c, &[3, 2, 4]) }),
        ("concat_rows",        |g, x| { let b = g.tanh(x); g.concat_rows(x, b) }),
        ("rows",               |g, x| g.rows(x, 1, 2)),
        ("where",              |g, x| { let (zero, t) = (g.scalar(0.0), g.tanh(x)); let c = g.greater(x, zero);
                                        g.r#where(c, x, t) }),
    ];

    /// Σ (cᵢ yᵢ²) with uneven c, so that no two elements of a gradient are alike.
    fn weighed_square(g: &mut Graph, y: Var) -> Var {
        let shape = g.shape(y).to_vec();
        let c: Vec<f32> = (0..shape.iter().product()).map(|i| 0.3 + (i * 11 % 13) as f32 * 0.1).collect();
        let (c, y2) = (g.constant("c", &shape, &c), g.mul(y, y));
        let weighed = g.mul(y2, c);
        g.sum(weighed, &(0..shape.len()).collect::<Vec<_>>(), false)
    }

    #[test]
    fn every_backward_rule_agrees_with_central_differences_to_second_order() {
        let runtime = OnnxRuntime::open(Some(Device::Cpu), 1, false, &mut |_| ()).unwrap();
        let at: Vec<f32> = (0..12).map(|i| ((i * 7 % 12) as f32 - 5.6) * 0.2).collect();
        for (name, rule) in RULES {
            let g = &mut Graph::default();
            let x = g.input("x", Type::F32, &[3, 4]);
            let y = rule(g, x);
            let loss = weighed_square(g, y);
            let first = g.grad(loss, &[x])[0];
            let loss_of_first = weighed_square(g, first);
            let second = g.grad(loss_of_first, &[x])[0];
            let outputs = [loss, loss_of_first, first, second].map(|v| (v, format!("out_{}", v.0)));
            let model = g.to_model(name, &outputs, None);
            let run = |x: &[f32]| runtime.run(&model, &[("x", &[3, 4], x)]).unwrap();
            let gradients = run(&at);
            for i in 0..at.len() {
                let h = 4e-3;
                let moved = |by: f32| run(&[&at[..i], &[at[i] + by], &at[i + 1..]].concat());
                let (less, more) = (moved(-h), moved(h));
                for order in [0, 1] {
                    let difference = (more[order][0] - less[order][0]) / (2.0 * h);
                    let ours = gradients[2 + order][i];
                    let scale = gradients[2 + order].iter().fold(1f32, |s, g| s.max(g.abs()));
                    let error = (ours - difference).abs() / scale;
                    assert!(error < 5e-3, "{name}, order {}, x[{i}]: {ours} against {difference}", order + 1);
                }
            }
        }
    }

    #[test]
    fn a_product_of_two_stretched_tensors_is_as_large_as_they_are() {
        let runtime = OnnxRuntime::open(Some(Device::Cpu), 1, false, &mut |_| ()).unwrap();
        let g = &mut Graph::default();
        let x = g.input("x", Type::F32, &[1, 1]);
        let wide = g.expand(x, &[3, 2]);
        let square = g.mul(wide, wide);
        assert_eq!(g.shape(square), [3, 2]);
        let sum = g.sum(square, &[0, 1], false);
        let model = g.to_model("stretched", &[(sum, "sum".into())], None);
        assert_eq!(runtime.run(&model, &[("x", &[1, 1], &[2.0])]).unwrap(), [[24.0]]);
    }

    #[test]
    fn no_gradient_leaves_a_detached_part() {
        let runtime = OnnxRuntime::open(Some(Device::Cpu), 1, false, &mut |_| ()).unwrap();
        let g = &mut Graph::default();
        let x = g.input("x", Type::F32, &[1, 1]);
        let square = g.mul(x, x);
        let square = g.detach(square);
        let y = g.mul(square, x);
        let loss = g.sum(y, &[0, 1], false);
        let dx = g.grad(loss, &[x])[0];
        let model = g.to_model("detached", &[(dx, "dx".into())], None);
        assert_eq!(runtime.run(&model, &[("x", &[1, 1], &[3.0])]).unwrap(), [[9.0]]);
    }
}
