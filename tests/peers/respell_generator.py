"""respell_generator.py IN OUT SPELLING: the same generator in other words, or spoilt in one place."""
import sys
import numpy as np, onnx
from onnx import helper, numpy_helper

source, target, spelling = sys.argv[1:]
model = onnx.load(source)
graph = model.graph
tensors = {t.name: t for t in graph.initializer}


def put(name, array):
    tensors[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), name))


def value(name):
    return numpy_helper.to_array(tensors[name]).copy()


if spelling == "transB":  # as PyTorch exports it
    for node in graph.node:
        if node.op_type == "Gemm":
            node.attribute.append(helper.make_attribute("transB", 1))
            put(node.input[1], value(node.input[1]).T)
elif spelling == "matmul":
    nodes = []
    for node in graph.node:
        if node.op_type == "Gemm":
            product = node.output[0] + "_product"
            nodes.append(helper.make_node("MatMul", node.input[:2], [product]))
            nodes.append(helper.make_node("Add", [node.input[2], product], node.output))
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
elif spelling == "float_data":
    for name, tensor in tensors.items():
        array = value(name)
        tensor.CopyFrom(helper.make_tensor(name, onnx.TensorProto.FLOAT, array.shape, array.ravel()))
elif spelling == "shape":
    put("fc2.bias", value("fc2.bias")[:-1])
elif spelling == "short":
    tensors["fc2.bias"].raw_data = tensors["fc2.bias"].raw_data[:-4]
elif spelling == "nan":
    array = value("fc3.weight")
    array.flat[5] = np.nan
    put("fc3.weight", array)
elif spelling == "alpha":
    next(n for n in graph.node if n.op_type == "LeakyRelu").attribute[0].f = 0.3
elif spelling == "double":
    put("fc1.bias", value("fc1.bias").astype(np.float64))
elif spelling == "relu":
    node = next(n for n in graph.node if n.op_type == "LeakyRelu")
    node.op_type = "Relu"
    del node.attribute[:]
elif spelling == "end":
    graph.node[-1].output[0] = "tanh"
    graph.node.append(helper.make_node("Neg", ["tanh"], ["image"]))
else:
    raise SystemExit(f"unknown spelling {spelling}")
onnx.save(model, target)
