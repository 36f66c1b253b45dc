//! Backward rules of the graph's operators, checked by ONNX Runtime.

use ndarray::{arr0, arr2, aview1, aview2};
use trainer::config::Engine;
use trainer::graph::onnx::Type;
use trainer::graph::{Graph, Var};
use trainer::ort::OnnxRuntime;

type Rule = fn(&mut Graph, Var) -> Var;

/// Every operator with a backward rule, in each of its variants, as a function of x (3, 4).
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
    ("upsample2",          |g, x| { let x = g.reshape(x, &[1, 2, 3, 2]); g.upsample2(x) }),
    ("transpose",          |g, x| g.transpose(x)),
    ("sum",                |g, x| g.sum(x, &[0], false)),
    ("reshape",            |g, x| g.reshape(x, &[2, 6])),
    ("expand",             |g, x| { let c = g.reshape(x, &[3, 1, 4]); g.expand(c, &[3, 2, 4]) }),
    ("concat_rows",        |g, x| { let b = g.tanh(x); g.concat_rows(x, b) }),
    ("rows",               |g, x| g.rows(x, 1, 2)),
    ("where",              |g, x| { let (zero, t) = (g.scalar(0.0), g.tanh(x)); let c = g.greater(x, zero);
                                    g.r#where(c, x, t) }),
];

/// Σ (cᵢ yᵢ²) with different cᵢ, so that no two elements of a gradient are equal.
fn weighted_square(g: &mut Graph, y: Var) -> Var {
    let shape = g.shape(y).to_vec();
    let c: Vec<f32> = (0..shape.iter().product()).map(|i| 0.3 + (i * 11 % 13) as f32 * 0.1).collect();
    let (c, y2) = (g.constant("c", &shape, &c), g.mul(y, y));
    let weighted = g.mul(y2, c);
    g.sum(weighted, &(0..shape.len()).collect::<Vec<_>>(), false)
}

#[test]
fn every_backward_rule_agrees_with_central_differences_to_second_order() {
    let runtime = OnnxRuntime::open(&Engine::cpu(1), &mut |_| ()).unwrap();
    let at: Vec<f32> = (0..12).map(|i| ((i * 7 % 12) as f32 - 5.6) * 0.2).collect();
    for (name, rule) in RULES {
        let g = &mut Graph::default();
        let x = g.input("x", Type::F32, &[3, 4]);
        let y = rule(g, x);
        let loss = weighted_square(g, y);
        let first = g.grad(loss, &[x])[0];
        let loss_of_first = weighted_square(g, first);
        let second = g.grad(loss_of_first, &[x])[0];
        let outputs = ["loss", "loss_of_first", "first", "second"].map(String::from);
        let outputs: Vec<_> = [loss, loss_of_first, first, second].into_iter().zip(outputs).collect();
        let model = g.to_model(name, &outputs, None);
        let run = |x: &[f32]| -> Vec<Vec<f32>> {
            let x = aview1(x).into_shape_with_order((3, 4)).unwrap();
            let outputs = runtime.run(&model, &[("x", x.into_dyn())]).unwrap();
            outputs.into_iter().map(|output| output.into_iter().collect()).collect()
        };
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
fn a_product_of_two_expanded_tensors_has_their_shape() {
    let runtime = OnnxRuntime::open(&Engine::cpu(1), &mut |_| ()).unwrap();
    let g = &mut Graph::default();
    let x = g.input("x", Type::F32, &[1, 1]);
    let wide = g.expand(x, &[3, 2]);
    let square = g.mul(wide, wide);
    assert_eq!(g.shape(square), [3, 2]);
    let sum = g.sum(square, &[0, 1], false);
    let model = g.to_model("expanded", &[(sum, "sum".into())], None);
    assert_eq!(runtime.run(&model, &[("x", aview2(&[[2.0]]).into_dyn())]).unwrap(), [arr0(24.0).into_dyn()]);
}

#[test]
fn no_gradient_passes_a_detached_tensor() {
    let runtime = OnnxRuntime::open(&Engine::cpu(1), &mut |_| ()).unwrap();
    let g = &mut Graph::default();
    let x = g.input("x", Type::F32, &[1, 1]);
    let square = g.mul(x, x);
    let square = g.detach(square);
    let y = g.mul(square, x);
    let loss = g.sum(y, &[0, 1], false);
    let dx = g.grad(loss, &[x])[0];
    let model = g.to_model("detached", &[(dx, "dx".into())], None);
    assert_eq!(runtime.run(&model, &[("x", aview2(&[[3.0]]).into_dyn())]).unwrap(), [arr2(&[[9.0]]).into_dyn()]);
}
