"""check_cuda_kernels.py KERNELS MODEL...: fails unless each node, functions written out, has a CUDA kernel for its types."""
import sys
import onnx
from onnx import defs, inliner, shape_inference

kernels = {}
for line in open(sys.argv[1]):
    if not line.startswith("#"):
        op, _, types = line.strip().split("|")
        kernels[op] = {name: set(of.split(",")) for name, of in (part.split(": ") for part in types.split("; "))}

for path in sys.argv[2:]:
    model = inliner.inline_local_functions(onnx.load(path))
    graph = shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    name = {number: text.lower() for text, number in onnx.TensorProto.DataType.items()}
    types = {v.name: name[v.type.tensor_type.elem_type] for v in [*graph.input, *graph.output, *graph.value_info]}
    types |= {t.name: name[t.data_type] for t in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":  # an initializer, once loaded
            types[node.output[0]] = name[node.attribute[0].t.data_type]
            continue
        assert node.domain == "" and node.op_type in kernels, f"{node.name}: no CUDA kernel for {node.domain} {node.op_type}"
        schema = defs.get_schema(node.op_type, 17)
        for formal, actual in ((schema.inputs, node.input), (schema.outputs, node.output)):
            for i, value in enumerate(actual):
                allowed = kernels[node.op_type].get(formal[min(i, len(formal) - 1)].type_str)
                ok = allowed is None or types[value] in allowed
                assert ok, f"{node.name}: no CUDA kernel for {node.op_type} of {types[value]}"
    print(f"{path}: {len(graph.node)} nodes")
