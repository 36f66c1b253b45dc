//! The operators, each with its formula, its ONNX node and its backward rule.
//!
//! In the formulas, dx is the gradient of the loss with respect to x. B is the batch, I and O are channels in and out.

use std::rc::Rc;

use crate::graph::onnx::{self, Attribute, Type};
use crate::graph::{Graph, Node, Origin, Var};

impl Graph {
    // ---- arithmetic; shapes broadcast by NumPy's rule

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
        // `Mul` broadcasts by itself, and x · 1 is x: both shortcuts save nodes in backward passes.
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

    /// y = x / c, for a constant c.   dx = dy / c
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

    /// y = a b + c, for a (M, K), b (K, N) and c (N,), which is added to each row. With `trans_a`, a is stored as (K,
    /// M); with `trans_b`, b is stored as (N, K).
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
        self.tanh_with_gradient(x, |g, y, dy| {
            let (one, y2) = (g.scalar(1.0), g.mul(y, y));
            let slope = g.sub(one, y2);
            g.mul(dy, slope)
        })
    }

    /// y = tanh x.   dx = `gradient(g, y, dy)`
    pub fn tanh_with_gradient(&mut self, x: Var, gradient: impl Fn(&mut Graph, Var, Var) -> Var + 'static) -> Var {
        self.unary("Tanh", vec![], x, move |g, _, y, dy| gradient(g, y, dy))
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

    /// y (B, O, H', W') = x (B, I, H, W), zero-padded by `pad` on each side, correlated with w (O, I, K, K), plus c
    /// (O,).
    ///
    /// dx = dy convolved with w; dw = x correlated with dy, summed over B; dc = Σ dy over all axes but O
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

    /// y (B, I, H, W) = x (B, O, H', W') convolved with w (O, I, K, K): the gradient of [`Self::conv`]'s input.
    ///
    /// dx = dy correlated with w; dw = dy correlated with x, summed over B
    pub fn conv_transpose(&mut self, x: Var, w: Var, pad: usize) -> Var {
        let (sx, sw) = (self.shape(x), self.shape(w));
        let shape = [sx[0], sw[1], sx[2] + sw[2] - 1 - 2 * pad, sx[3] + sw[3] - 1 - 2 * pad];
        let attributes = vec![Attribute::ints("pads", &[pad as i64; 4])];
        self.node("ConvTranspose", attributes, vec![x, w], Type::F32, &shape, move |g, _, dy| {
            vec![Some(g.conv(dy, w, None, pad)), Some(g.conv_weight(dy, x, pad))]
        })
    }

    /// The gradient of [`Self::conv`]'s weights: a correlation with batch and channel axes swapped.
    fn conv_weight(&mut self, x: Var, dy: Var, pad: usize) -> Var {
        let (x, dy) = (self.transpose(x), self.transpose(dy));
        let dw = self.conv(x, dy, None, pad);
        self.transpose(dw)
    }

    /// y (B, C, H/2, W/2) = the maximum of each 2 × 2 pixels of x (B, C, H, W).   dx = dy at the maximum, else 0
    pub fn max_pool2(&mut self, x: Var) -> Var {
        let [b, c, h, w] = *self.shape(x) else { panic!("max_pool2: {:?}", self.shape(x)) };
        let attributes = vec![Attribute::ints("kernel_shape", &[2, 2]), Attribute::ints("strides", &[2, 2])];
        self.node("MaxPool", attributes, vec![x], Type::F32, &[b, c, h / 2, w / 2], move |g, y, dy| {
            let (y, dy, zero) = (g.upsample2(y), g.upsample2(dy), g.scalar(0.0));
            let below = g.greater(y, x);
            vec![Some(g.r#where(below, zero, dy))]
        })
    }

    /// y (B, C, 2H, 2W) = x (B, C, H, W) with each pixel repeated as 2 × 2 pixels.   dx = the sum of dy over these
    ///
    /// A broadcast along a new last axis of length 2 takes four times as long.
    pub fn upsample2(&mut self, x: Var) -> Var {
        let [b, c, h, w] = *self.shape(x) else { panic!("upsample2: {:?}", self.shape(x)) };
        let (region, scales) =
            (self.constant("region", &[0], &[]), self.constant("scales", &[4], &[1.0, 1.0, 2.0, 2.0]));
        self.node("Resize", vec![], vec![x, region, scales], Type::F32, &[b, c, 2 * h, 2 * w], move |g, _, dy| {
            let dy = g.reshape(dy, &[b, c, h, 2, w, 2]);
            vec![Some(g.sum(dy, &[3, 5], false)), None, None]
        })
    }

    /// y = x with its first two axes swapped.   dx = dy with its first two axes swapped
    pub fn transpose(&mut self, x: Var) -> Var {
        let mut shape = self.shape(x).to_vec();
        shape.swap(0, 1);
        let mut perm: Vec<i64> = (0..shape.len() as i64).collect();
        perm.swap(0, 1);
        let attributes = vec![Attribute::ints("perm", &perm)];
        self.node("Transpose", attributes, vec![x], Type::F32, &shape, |g, _, dy| vec![Some(g.transpose(dy))])
    }

    // ---- sums

    /// y = Σ x over `axes`; `keep` leaves each of them with length 1.   dx = dy, expanded to x's shape
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

    /// The sum (N,) of the rows of x (B, N): the gradient of a bias.
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

    /// y = x in another shape with as many elements.   dx = dy in x's shape
    pub fn reshape(&mut self, x: Var, shape: &[usize]) -> Var {
        let old = self.shape(x).to_vec();
        if old == shape {
            return x;
        }
        let mut to: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
        if shape.first() == old.first() && !shape.is_empty() {
            to[0] = 0; // in ONNX: as in the input, so that a free first dimension stays free
        }
        let to = self.ints("shape", &to);
        let elem = self.elem(x);
        self.node("Reshape", vec![], vec![x, to], elem, shape, move |g, _, dy| vec![Some(g.reshape(dy, &old)), None])
    }

    /// y = x repeated to `shape` along its axes of length 1.   dx = Σ dy over those axes
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

    /// y = the rows of a, then the rows of b.   da = the first rows of dy, db = the others
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

    // ---- selection; all operators below but `where` block gradients

    /// y = a where the condition holds, else b.   da = dy where it holds, else 0; db = 0 where it holds, else dy
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

    /// x, without a path for gradients.
    pub fn detach(&mut self, x: Var) -> Var {
        let (elem, shape) = (self.elem(x), self.shape(x).to_vec());
        self.leaf_node("Identity", vec![], vec![x], elem, &[&shape])[0]
    }

    /// a > b, as bool.
    pub fn greater(&mut self, a: Var, b: Var) -> Var {
        let shape = broadcast(self.shape(a), self.shape(b));
        self.leaf_node("Greater", vec![], vec![a, b], Type::Bool, &[&shape])[0]
    }

    /// x clamped to the range of two scalars, `min` and `max`.
    pub fn clip(&mut self, x: Var, min: Var, max: Var) -> Var {
        let shape = self.shape(x).to_vec();
        self.leaf_node("Clip", vec![], vec![x, min, max], Type::F32, &[&shape])[0]
    }

    /// The rows (…) of `data` (N, …) at `indices`, with the axes of `indices` before theirs.
    pub fn gather(&mut self, data: Var, indices: Var) -> Var {
        let shape = [self.shape(indices), &self.shape(data)[1..]].concat();
        let elem = self.elem(data);
        self.leaf_node("Gather", vec![Attribute::int("axis", 0)], vec![data, indices], elem, &[&shape])[0]
    }

    /// Columns from ≤ c < to of x (B, C).
    pub fn columns(&mut self, x: Var, from: usize, to: usize) -> Var {
        let (elem, rows) = (self.elem(x), self.shape(x)[0]);
        let inputs = vec![x, self.ints("from", &[from as i64]), self.ints("to", &[to as i64]), self.ints("axis", &[1])];
        self.leaf_node("Slice", vec![], inputs, elem, &[&[rows, to - from]])[0]
    }

    /// x with its axes in the order of `perm`.
    pub fn permute(&mut self, x: Var, perm: [usize; 4]) -> Var {
        let shape = perm.map(|axis| self.shape(x)[axis]);
        let attributes = vec![Attribute::ints("perm", &perm.map(|axis| axis as i64))];
        self.leaf_node("Transpose", attributes, vec![x], Type::F32, &[&shape])[0]
    }

    /// x (B, C, H, W) with rows and columns of zeros added at the top, the left, the bottom and the right; negative numbers take rows
    /// and columns away.
    pub fn pad_images(&mut self, x: Var, [top, left, bottom, right]: [i64; 4]) -> Var {
        let [b, c, h, w] = *self.shape(x) else { panic!("pad_images: {:?}", self.shape(x)) };
        let longer = |len: usize, by: i64| len.strict_add_signed(by as isize);
        let pads = self.ints("pads", &[0, 0, top, left, 0, 0, bottom, right]);
        let shape = [b, c, longer(h, top + bottom), longer(w, left + right)];
        self.leaf_node("Pad", vec![], vec![x, pads], Type::F32, &[&shape])[0]
    }

    /// The four pixels of each 2 × 2 pixels of x (B, C, H, W) as channels: (B, 4C, H/2, W/2).
    pub fn space_to_depth(&mut self, x: Var) -> Var {
        let [b, c, h, w] = *self.shape(x) else { panic!("space_to_depth: {:?}", self.shape(x)) };
        let attributes = vec![Attribute::int("blocksize", 2)];
        self.leaf_node("SpaceToDepth", attributes, vec![x], Type::F32, &[&[b, 4 * c, h / 2, w / 2]])[0]
    }

    /// The inverse of [`Self::space_to_depth`].
    pub fn depth_to_space(&mut self, x: Var) -> Var {
        let [b, c, h, w] = *self.shape(x) else { panic!("depth_to_space: {:?}", self.shape(x)) };
        let attributes = vec![Attribute::int("blocksize", 2)];
        self.leaf_node("DepthToSpace", attributes, vec![x], Type::F32, &[&[b, c / 4, 2 * h, 2 * w]])[0]
    }

    /// The four quarters (B, C/4, H, W) of the channels of x (B, C, H, W), in order.
    pub fn split_quarters(&mut self, x: Var) -> Vec<Var> {
        let [b, c, h, w] = *self.shape(x) else { panic!("split_quarters: {:?}", self.shape(x)) };
        let quarter = [b, c / 4, h, w];
        self.leaf_node("Split", vec![Attribute::int("axis", 1)], vec![x], Type::F32, &[&quarter; 4].map(|q| &q[..]))
    }

    /// x converted to another element type.
    pub fn cast(&mut self, x: Var, to: Type) -> Var {
        let shape = self.shape(x).to_vec();
        self.leaf_node("Cast", vec![Attribute::int("to", to as i64)], vec![x], to, &[&shape])[0]
    }

    /// The consecutive parts of a vector, in these shapes; the inverse of [`Self::pack`].
    pub fn unpack(&mut self, x: Var, shapes: &[Vec<usize>]) -> Vec<Var> {
        let row = self.reshape(x, &[1, self.shape(x)[0]]);
        let lens: Vec<usize> = shapes.iter().map(|shape| shape.iter().product()).collect();
        let pieces = self.split_columns(row, &lens);
        pieces.into_iter().zip(shapes).map(|(piece, shape)| self.reshape(piece, shape)).collect()
    }

    /// The consecutive column blocks (R, width) of x (R, C).
    ///
    /// A chain of Splits into at most four parts, of which the last is split on. ONNX Runtime's CUDA provider runs such
    /// a Split as one kernel; a Split into five or more parts costs a kernel and four copies from the host.
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

    /// All elements of some tensors as one vector, each tensor row-major; the inverse of [`Self::unpack`].
    pub fn pack(&mut self, tensors: &[Var]) -> Var {
        let flat: Vec<Var> = tensors.iter().map(|&x| self.reshape(x, &[self.shape(x).iter().product()])).collect();
        let len = flat.iter().map(|&x| self.shape(x)[0]).sum();
        self.leaf_node("Concat", vec![Attribute::int("axis", 0)], flat, Type::F32, &[&[len]])[0]
    }

    /// Some tensors joined along their second axis: the columns of matrices, the channels of images (B, C, H, W).
    pub fn concat_axis1(&mut self, tensors: &[Var]) -> Var {
        let (mut shape, elem) = (self.shape(tensors[0]).to_vec(), self.elem(tensors[0]));
        shape[1] = tensors.iter().map(|&x| self.shape(x)[1]).sum();
        self.leaf_node("Concat", vec![Attribute::int("axis", 1)], tensors.to_vec(), elem, &[&shape])[0]
    }

    // ---- operators of this project

    /// The outputs of `body` for named `inputs`, computed by one node of type `op_type` in the domain [`onnx::DOMAIN`].
    ///
    /// The model file carries `body` as a function of standard operators. ONNX Runtime calls the Rust kernel registered
    /// for `op_type` if there is one, and otherwise inlines the function. All nodes of one type share one function, so
    /// the body must not depend on shapes. Gradients do not pass, unless [`Self::with_backward`] adds a rule.
    pub fn fused(
        &mut self,
        op_type: &'static str,
        inputs: &[(&str, Var)],
        body: impl FnOnce(&mut Graph, &[Var]) -> Vec<(&'static str, Var)>,
    ) -> Vec<Var> {
        let inner = &mut Graph::default();
        let parameters: Vec<Var> =
            (inputs.iter()).map(|(name, x)| inner.input(name, self.elem(*x), self.shape(*x))).collect();
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

    /// y, the only output of its node, with the backward rule `dx = backward(g, dy)` for the node's first input.
    pub fn with_backward(&mut self, y: Var, backward: impl Fn(&mut Graph, Var) -> Var + 'static) -> Var {
        let Origin::Node(n) = self.values[y.0].origin else { panic!("{}: no node's output", self.values[y.0].name) };
        assert!(self.nodes[n].outputs.len() == 1 && self.nodes[n].backward.is_none(), "{}", self.values[y.0].name);
        self.nodes[n].backward = Some(Rc::new(move |g: &mut Graph, _: Var, dy: Var| vec![Some(backward(g, dy))]));
        y
    }

    // ---- helpers

    /// An elementwise operator of one tensor; `backward(g, x, y, dy)` returns dx.
    fn unary(
        &mut self,
        op_type: &'static str,
        attributes: Vec<Attribute>,
        x: Var,
        backward: impl Fn(&mut Graph, Var, Var, Var) -> Var + 'static,
    ) -> Var {
        let (elem, shape) = (self.elem(x), self.shape(x).to_vec());
        self.node(op_type, attributes, vec![x], elem, &shape, move |g, y, dy| vec![Some(backward(g, x, y, dy))])
    }

    /// An elementwise operator of two tensors; `backward(g, a, b, y, dy)` returns (da, db) in y's shape.
    fn binary(
        &mut self,
        op_type: &'static str,
        a: Var,
        b: Var,
        backward: impl Fn(&mut Graph, Var, Var, Var, Var) -> (Var, Var) + 'static,
    ) -> Var {
        let (sa, sb) = (self.shape(a).to_vec(), self.shape(b).to_vec());
        let elem = self.elem(a);
        self.node(op_type, vec![], vec![a, b], elem, &broadcast(&sa, &sb), move |g, y, dy| {
            let (da, db) = backward(g, a, b, y, dy);
            vec![Some(g.unbroadcast(da, &sa)), Some(g.unbroadcast(db, &sb))]
        })
    }

    /// The input of the [`Self::expand`] that made `x`, if broadcasting against `other` gives it the same shape.
    fn unexpanded(&self, x: Var, other: Var) -> Var {
        let Origin::Node(n) = self.values[x.0].origin else { return x };
        let Node { op_type, inputs, .. } = &self.nodes[n];
        let stretches = || broadcast(self.shape(inputs[0]), self.shape(other)) == self.shape(x);
        if *op_type == "Expand" && stretches() { inputs[0] } else { x }
    }

    /// Undoes broadcasting in a gradient: sums `dy` over the axes along which a tensor of this shape was repeated.
    fn unbroadcast(&mut self, dy: Var, shape: &[usize]) -> Var {
        let from = self.shape(dy).to_vec();
        let missing = from.len() - shape.len();
        let axes: Vec<usize> =
            (0..from.len()).filter(|&i| i < missing || (shape[i - missing] == 1 && from[i] != 1)).collect();
        let sum = if axes.is_empty() { dy } else { self.sum(dy, &axes, true) };
        self.reshape(sum, shape)
    }
}

/// The common shape of two tensors by NumPy's rule: aligned at the last axis; axes of length 1 are repeated.
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
