"""onnxruntime sessions of one model that rotates q and k, by the standard's operator or its own."""

from typing import Any

import numpy as np
import onnx
import onnxruntime

from benchmarks.harness import Run
from benchmarks.work import Array, Data

OPSET, IR_VERSION = 23, 10


def _node(data: Data, name: str, heads: int, domain: str) -> Any:
    """Return the operator for one of q and k; (batch, seq, heads, dim) is a flat shape to it."""
    rest = ["cos", "sin", "ids"] if domain == "" else ["ids", "cos", "sin"]
    how: dict[str, Any] = {"interleaved": int(data.work.layout == "interleaved")}
    if data.work.axes == "BSHD":
        how["num_heads"] = heads
    inputs, outputs = [name, *rest], [f"{name}_out"]
    return onnx.helper.make_node("RotaryEmbedding", inputs, outputs, domain=domain, **how)


def _shape(data: Data, heads: int) -> tuple[int, ...]:
    if data.work.axes == "BSHD":
        return data.work.batch, data.work.seq, heads * data.work.dim
    return data.work.shape(heads)


def _model(data: Data, domain: str) -> bytes:
    """Return the model: inputs q, k, cos, sin, ids; outputs q_out, k_out."""
    real = onnx.helper.np_dtype_to_tensor_dtype(data.q.dtype)
    info, pairs = onnx.helper.make_tensor_value_info, tuple(zip("qk", data.work.heads, strict=True))
    inputs = [info(name, real, _shape(data, heads)) for name, heads in pairs]
    inputs += [info(name, real, data.cos.shape) for name in ("cos", "sin")]
    inputs.append(info("ids", onnx.TensorProto.INT64, (data.work.batch, data.work.seq)))
    outputs = [info(f"{name}_out", real, _shape(data, heads)) for name, heads in pairs]
    nodes = [_node(data, name, heads, domain) for name, heads in pairs]
    graph = onnx.helper.make_graph(nodes, "rope", inputs, outputs)
    opsets = [onnx.helper.make_opsetid("", OPSET), onnx.helper.make_opsetid("com.microsoft", 1)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    return bytes(model.SerializeToString())


def session(data: Data, domain: str) -> tuple[Any, dict[str, Array]]:
    """Return a session, and its inputs: q and k where they lie, tables in the data's dtype.

    Parameters
    ----------
    data : Data
    domain : {"", "com.microsoft"}
        Whose RotaryEmbedding.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = data.threads, 1
    providers = ["CPUExecutionProvider"]
    made = onnxruntime.InferenceSession(_model(data, domain), options, providers=providers)
    ids = np.broadcast_to(data.positions, (data.work.batch, data.work.seq))
    inputs = {
        "q": data.q.reshape(_shape(data, data.work.heads[0])),
        "k": data.k.reshape(_shape(data, data.work.heads[1])),
        "cos": data.cos.astype(data.q.dtype),
        "sin": data.sin.astype(data.q.dtype),
        "ids": np.ascontiguousarray(ids),
    }
    return made, inputs


def bound(data: Data, domain: str) -> Run:
    """Return the call of a session that reads q and k and writes q_out and k_out where they lie."""
    made, inputs = session(data, domain)
    binding = made.io_binding()

    def bind(to: Any, name: str, x: Array, shape: tuple[int, ...]) -> None:
        to(name, "cpu", 0, x.dtype.type, shape, x.ctypes.data)

    for name, x in inputs.items():
        bind(binding.bind_input, name, x, x.shape)
    bind(binding.bind_output, "q_out", data.q_out, inputs["q"].shape)
    bind(binding.bind_output, "k_out", data.k_out, inputs["k"].shape)
    run = made.run_with_iobinding

    def once(_keep: object = (data, inputs)) -> None:
        run(binding)

    return once
