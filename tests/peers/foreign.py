"""foreign.py BASE OUT: writes to OUT the generator BASE with a fault each, and other models that are no generators."""
import os, sys
import numpy as np, onnx
from onnx import TensorProto as T, helper as h, numpy_helper as nh

base, out = onnx.load(sys.argv[1]), sys.argv[2]
weight = nh.from_array(np.full((100, 784), 1e-3, np.float32), "W")


def copy():
    model = onnx.ModelProto()
    model.CopyFrom(base)
    return model


def save(name, model):
    with open(os.path.join(out, name + ".onnx"), "wb") as file:
        file.write(model.SerializeToString())


def model(*nodes, initializers=(), functions=(), domains=("",)):
    """z → `nodes` → image; the first node makes x."""
    info = [h.make_tensor_value_info(name, T.FLOAT, ["N", n]) for name, n in [("z", 100), ("image", 784)]]
    nodes = [h.make_node("MatMul", ["z", "W"], ["x"], name="first"), *nodes]
    graph = h.make_graph(nodes, "g", info[:1], info[1:], [weight, *initializers])
    return h.make_model(graph, opset_imports=[h.make_opsetid(d, 17 if d == "" else 1) for d in domains], ir_version=8, functions=functions)


save("good", model(h.make_node("Tanh", ["x"], ["image"])))
save("attribute", model(h.make_node("Tanh", ["x"], ["image"], name="last", bogus=3)))
save("domain", model(h.make_node("QuickGelu", ["x"], ["image"], name="last", domain="com.microsoft"), domains=["", "com.microsoft"]))
body = h.make_function("acme", "F", ["x"], ["y"], [h.make_node("Tanh", ["x"], ["y"])], [h.make_opsetid("", 17)])
save("function", model(h.make_node("F", ["x"], ["image"], domain="acme"), functions=[body], domains=["", "acme"]))

# The trainer's own kernels must never see these.
slopes = [nh.from_array(np.ones(n, t), name) for name, n, t in [("mask", 1, np.uint8), ("a", 1, np.float32), ("b", 1, np.float32)]]
node = h.make_node("LeakyReluDropoutSlope", ["x", "mask", "a", "b"], ["image"], name="last", domain="trainer")
save("kernel", model(node, initializers=slopes, domains=["", "trainer"]))

# A loop of 2⁶² rounds.
infos = [h.make_tensor_value_info(*info) for info in [("i", T.INT64, []), ("c", T.BOOL, []), ("v", T.FLOAT, None), ("d", T.BOOL, []), ("w", T.FLOAT, None)]]
body = h.make_graph([h.make_node("Identity", ["c"], ["d"]), h.make_node("Identity", ["v"], ["w"])], "body", infos[:3], infos[3:])
rounds = [nh.from_array(np.int64(2**62), "rounds"), nh.from_array(np.array(True), "go")]
save("endless", model(h.make_node("Loop", ["rounds", "go", "x"], ["image"], body=body), initializers=rounds))

spoilt = copy()
first = spoilt.graph.initializer[0]
first.raw_data += b"\0" * 4
save("surplus", spoilt)
first.raw_data = first.raw_data[:-8]
save("short", spoilt)

spoilt = copy()
values = nh.to_array(spoilt.graph.initializer[1]).copy()
values[3] = np.nan
spoilt.graph.initializer[1].raw_data = values.tobytes()
save("nan", spoilt)

spoilt = copy()
spoilt.graph.initializer.append(spoilt.graph.initializer[0])
save("twice", spoilt)

data = base.graph.initializer[0].raw_data
for name, size in [("weights", len(data)), ("few", 100), ("../above", len(data))]:
    with open(os.path.join(out, name + ".data"), "wb") as file:
        file.write(data[:size])
os.symlink("../above.data", os.path.join(out, "link.data"))
places = dict(beside="weights.data", truncated="few.data", missing="none.data", parent="../above.data", link="link.data")
for name, place in {**places, "absolute": os.path.abspath(os.path.join(out, "weights.data"))}.items():
    spoilt = copy()
    first = spoilt.graph.initializer[0]
    first.ClearField("raw_data")
    first.data_location = T.EXTERNAL
    first.external_data.extend(onnx.StringStringEntryProto(key=k, value=v) for k, v in [("location", place), ("length", str(len(data)))])
    save("external_" + name, spoilt)
