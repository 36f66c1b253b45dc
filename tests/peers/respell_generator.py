"""respell_generator.py IN OUT: the unconditional generator IN in other words.

OUT/same/*.onnx are the same network as exporters and tools may write it: ONNX Runtime gives IN's images, bit for bit.
OUT/refused/*.onnx are other networks, or spoilt in one place. OUT/int8/*.onnx have units with tiny weights or none.
"""
import os, sys
import numpy as np, onnx, onnxruntime
from onnx import TensorProto, helper, numpy_helper

source, out = sys.argv[1:]
for folder in ("same/data", "refused", "int8"):
    os.makedirs(f"{out}/{folder}")
base = onnx.load(source)
PARAMETERS = [numpy_helper.to_array(tensor) for tensor in base.graph.initializer]
W, B = PARAMETERS[::2], PARAMETERS[1::2]
FLOAT = TensorProto.FLOAT


class Graph:
    """Nodes and stored tensors, in the order in which they are written."""

    def __init__(self):
        self.nodes, self.stored = [], []

    def node(self, op, inputs, output, **attributes):
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def store(self, name, array, dtype=np.float32):
        array = np.array(array, dtype)
        self.stored.append(numpy_helper.from_array(array if array.ndim == 0 else np.ascontiguousarray(array), name))
        return name


def gemm(g, x, i, w=None, b=None, **attributes):
    w, b = g.store(f"w{i}", W[i] if w is None else w), g.store(f"b{i}", B[i] if b is None else b)
    return g.node("Gemm", [x, w, b], f"d{i}", **attributes)


def leaky(g, x, i, alpha=0.2, **attributes):
    return g.node("LeakyRelu", [x], f"a{i}", alpha=alpha, **attributes)


def through(op, stored, **attributes):
    """Weights that reach the Gemm through another operator."""
    def dense(g, x, i):
        w = g.node(op, [g.store(f"stored{i}", **stored(W[i]))], f"w{i}", **attributes)
        return g.node("Gemm", [x, w, g.store(f"b{i}", B[i])], f"d{i}")
    return dense


def product_and(op, bias, product="MatMul", bias_first=False, **attributes):
    """A dense layer of two nodes."""
    def dense(g, x, i):
        inputs = [x, g.store(f"w{i}", W[i])] + ([g.store(f"c{i}", B[i] + 1)] if attributes else [])
        both = [g.node(product, inputs, f"m{i}", **attributes), g.store(f"b{i}", bias(B[i]))]
        return g.node(op, both[::-1] if bias_first else both, f"d{i}")
    return dense


def constant_nodes(g, x, i):
    w = g.node("Constant", [], f"w{i}", value=numpy_helper.from_array(W[i]))
    b = g.node("Constant", [], f"b{i}", value_floats=B[i].tolist())
    return g.node("Gemm", [x, w, b], f"d{i}")


def dropout(training):
    def act(g, x, i):
        x = leaky(g, x, i)
        inputs = [x, g.store(f"ratio{i}", 0.2), g.store(f"training{i}", training, bool)]
        return g.node("Dropout", inputs, f"p{i}")
    return act


def leaky_by(op):
    def act(g, x, i):
        scaled = g.node("Mul", [x, g.store(f"slope{i}", 0.2)], f"s{i}")
        if op == "Max":
            return g.node("Max", [scaled, x], f"a{i}")
        zero = g.store(f"zero{i}", 0)
        if op == "Where":
            return g.node("Where", [g.node("GreaterOrEqual", [x, zero], f"c{i}"), x, scaled], f"a{i}")
        return g.node("Where", [g.node("Greater", [zero, x], f"c{i}"), scaled, x], f"a{i}")
    return act


def head(op, **attributes):
    return lambda g, x: g.node(op, [x], "head", **attributes)


def tail(op, *arguments, dtype=np.int64, **attributes):
    def end(g, x):
        return g.node(op, [x, *(g.store(f"argument{i}", a, dtype) for i, a in enumerate(arguments))], "image", **attributes)
    return end


def view(g, x):
    """image.view(z.size(0), 1, 28, 28), as PyTorch writes it."""
    batch = g.node("Gather", [g.node("Shape", ["z"], "shape"), g.store("first", 0, np.int64)], "batch", axis=0)
    batch = g.node("Unsqueeze", [batch, g.store("axes", [0], np.int64)], "batches")
    target = g.node("Concat", [batch, g.store("rest", [1, 28, 28], np.int64)], "target", axis=0)
    return g.node("Reshape", [x, target], "image")


def channels_last(g, x):
    """image.reshape(-1, 1, 28, 28).transpose(0, 2, 3, 1)"""
    return g.node("Transpose", [g.node("Reshape", [x, g.store("chw", [-1, 1, 28, 28], np.int64)], "channels_first")],
                  "image", perm=[0, 2, 3, 1])


def tensorflow_view(g, x):
    """tf.reshape(image, [tf.shape(z)[0], 28, 28]), as tf2onnx writes it."""
    one = lambda name, n: g.store(name, [n], np.int64)
    shape = g.node("Cast", [g.node("Shape", ["z"], "shape")], "shape32", to=TensorProto.INT32)
    batch = g.node("Slice", [shape, one("start", 0), one("end", 1), one("axis", 0)], "batch")
    batch = g.node("Cast", [batch], "batch64", to=TensorProto.INT64)
    target = g.node("Concat", [batch, g.store("rest", [28, 28], np.int64)], "target", axis=0)
    return g.node("Reshape", [x, target], "image")


def function(g, x, i):
    return g.node("linear", [x, g.store(f"w{i}", W[i]), g.store(f"b{i}", B[i])], f"d{i}", domain="pkg", scale=1.0)


LINEAR = helper.make_function(
    "pkg", "linear", ["x", "w", "b"], ["y"], [helper.make_node("Gemm", ["x", "w", "b"], ["y"])],
    [helper.make_opsetid("", 17)], ["scale"])
attribute = LINEAR.node[0].attribute.add()
attribute.name, attribute.ref_attr_name, attribute.type = "beta", "scale", onnx.AttributeProto.FLOAT


def model(dense=gemm, act=leaky, head=None, tail=None, end="Tanh", z=("N", 100), elem=FLOAT, opset=17, more=None, **fields):
    g = Graph()
    x = head(g, "z") if head else "z"
    for i in range(4):
        x = dense(g, x, i)
        x = act(g, x, i) if i < 3 else g.node(end, [x], "tanh" if tail else "image")
    if tail:
        tail(g, x)
    if more:
        more(g)
    inputs = [helper.make_tensor_value_info("z", elem, z)]
    outputs = [helper.make_tensor_value_info("image", FLOAT, None)]
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("pkg", 1)]
    graph = helper.make_graph(g.nodes, "g", inputs, outputs, g.stored)
    return helper.make_model(graph, opset_imports=imports, ir_version=8, **fields)


def spoilt(change):
    spoilt = model()
    change({t.name: t for t in spoilt.graph.initializer}, spoilt.graph)
    return spoilt


def replaced(name, change):
    """The generator with one stored tensor changed."""
    def put(tensors, _):
        tensors[name].CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensors[name]).copy()), name))
    return spoilt(put)


def with_nan(w):
    w.flat[5] = np.nan
    return w


def two_bytes_more(tensors, _):
    tensors["w0"].raw_data += b"\0\0"


def four_bytes_less(tensors, _):
    tensors["b1"].raw_data = tensors["b1"].raw_data[:-4]


def as_float_data(tensors, _):
    for name, tensor in tensors.items():
        array = numpy_helper.to_array(tensor)
        tensor.CopyFrom(helper.make_tensor(name, FLOAT, array.shape, array.ravel()))


def twice(_, graph):
    graph.node.append(helper.make_node("Identity", ["z"], ["d0"]))


def unknown_attribute(_, graph):
    graph.node[0].attribute.append(helper.make_attribute("broadcast", 1))


def escape_in_name(_, graph):
    graph.node[0].input[1] = "w\x1b[31m\r\nerror: \u202e" + "w" * 1000


def unused_shape(g):
    g.node("Shape", ["a0"], "unused")


SAME = {
    "add": model(product_and("Add", lambda b: b)),
    "add_bias_first": model(product_and("Add", lambda b: b, bias_first=True)),
    "add_row": model(product_and("Add", lambda b: b[None])),
    "alpha": model(lambda g, x, i: gemm(g, x, i, w=W[i] * 2, alpha=0.5)),
    "beta": model(product_and("Add", lambda b: b, product="Gemm", beta=0.0)),
    "bias_row": model(lambda g, x, i: gemm(g, x, i, b=B[i][None])),
    "cast": model(through("Cast", lambda w: dict(array=w), to=FLOAT), head=head("Cast", to=FLOAT)),
    "clip": model(tail=tail("Clip", -1, 1, dtype=np.float32)),
    "constant_nodes": model(constant_nodes),
    "data/data": model(),
    "dead_node": model(more=unused_shape),
    "double_z": model(head=head("Cast", to=FLOAT), elem=TensorProto.DOUBLE),
    "dropout": model(act=dropout(False)),
    "flatten": model(head=head("Flatten"), tail=tail("Flatten"), z=("N", 100, 1, 1)),
    "float_data": spoilt(as_float_data),
    "function": model(function, functions=[LINEAR]),
    "gemm_and_add": model(product_and("Add", lambda b: b, product="Gemm")),
    "identity": model(through("Identity", lambda w: dict(array=w)), tail=tail("Identity")),
    "max": model(act=leaky_by("Max")),
    "p_relu": model(act=lambda g, x, i: g.node("PRelu", [x, g.store(f"slope{i}", [0.2])], f"a{i}")),
    "reshape": model(tail=tail("Reshape", [-1, 1, 28, 28])),
    "reshape_zero": model(tail=tail("Reshape", [0, 28, 28])),
    "squeeze": model(head=lambda g, x: g.node("Squeeze", [x, g.store("last", [2], np.int64)], "head"),
                     tail=tail("Unsqueeze", [0, -1]), z=(1, 100, 1)),
    "sub": model(product_and("Sub", lambda b: -b)),
    "tensorflow_view": model(tail=tensorflow_view),
    "transposed": model(lambda g, x, i: gemm(g, x, i, w=W[i].T, transB=1)),
    "transposed_in_a_node": model(through("Transpose", lambda w: dict(array=w.T), perm=[1, 0])),
    "transposed_image": model(tail=channels_last),
    "view": model(tail=view),
    "where": model(act=leaky_by("Where")),
    "where_less": model(act=leaky_by("Where less")),
}
REFUSED = {
    "alpha": model(act=lambda g, x, i: leaky(g, x, i, alpha=0.3)),
    "attribute": spoilt(unknown_attribute),
    "cast_weight": model(through("Cast", lambda w: dict(array=w, dtype=np.float16), to=FLOAT)),
    "domain": model(act=lambda g, x, i: leaky(g, x, i, domain="my.ops")),
    "double": replaced("b0", lambda b: b.astype(np.float64)),
    "dropout": model(act=dropout(True)),
    "escape": spoilt(escape_in_name),
    "half_z": model(elem=TensorProto.FLOAT16),
    "max": model(act=lambda g, x, i: g.node("Max", [x, g.node("Mul", [x, g.store(f"slope{i}", 0.3)], f"s{i}")], f"a{i}")),
    "nan": replaced("w2", with_nan),
    "neg": model(tail=lambda g, x: g.node("Neg", [x], "image")),
    "negative": spoilt(lambda tensors, _: tensors["w0"].dims.__setitem__(0, -100)),
    "other_bias": model(lambda g, x, i: g.node("Add", [gemm(g, x, i), g.store(f"more{i}", B[i] + 1)], f"e{i}")),
    "overflow": replaced("w1", lambda w: w * np.float32(1e38)),
    "relu": model(act=lambda g, x, i: g.node("Relu", [x], f"a{i}")),
    "rounding": model(lambda g, x, i: gemm(g, x, i, alpha=0.3)),
    "shape": replaced("b1", lambda b: b[:-1]),
    "short": spoilt(four_bytes_less),
    "sigmoid": model(end="Sigmoid"),
    "surplus": spoilt(two_bytes_more),
    "twice": spoilt(twice),
}


def with_unit(layer, unit, factor, bias=None):
    """The generator with one unit's incoming weights multiplied by `factor`."""
    weights, biases = [w.copy() for w in W], [b.copy() for b in B]
    weights[layer][:, unit] *= np.float32(factor)
    if bias is not None:
        biases[layer][unit] = bias
    return model(lambda g, x, i: gemm(g, x, i, w=weights[i], b=biases[i]))


INT8 = {f"dead_{layer}": with_unit(layer, 3, 0) for layer in range(4)}
INT8 |= {"dead_without_bias": with_unit(0, 3, 0, bias=0), "black": with_unit(3, list(range(28)), 0, bias=-4)}
INT8 |= {"tiny_1": with_unit(1, 3, 1e-6), "tiny_3": with_unit(3, 300, 1e-9, bias=0.5)}
INT8 |= {f"no_weights_{k}": model(lambda g, x, i: gemm(g, x, i, w=W[i] * np.float32(k))) for k in (0, 1e-30)}
INT8 |= {"dead_layer": model(lambda g, x, i: gemm(g, x, i, w=W[i] * np.float32(i != 2)))}

z = np.random.default_rng(1).uniform(-1, 1, 100).astype(np.float32)


def drawn(file):
    session = onnxruntime.InferenceSession(file)
    info, = session.get_inputs()
    shape = [n if isinstance(n, int) else 1 for n in info.shape]
    image, = session.run(None, {info.name: z.reshape(shape).astype(np.float64 if "double" in info.type else np.float32)})
    return image.ravel()


expected = drawn(source)
for folder, models in ("same", SAME), ("refused", REFUSED), ("int8", INT8):
    for name, proto in models.items():
        file = f"{out}/{folder}/{name}.onnx"
        if name == "data/data":
            onnx.save(proto, file, save_as_external_data=True, location="data.onnx.data", size_threshold=0)
        else:
            onnx.save(proto, file)
        if folder == "same":
            assert np.array_equal(drawn(file), expected), f"{name}: ONNX Runtime draws another image"
