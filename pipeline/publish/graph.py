"""A Llama as an ONNX graph, in the operators that onnxruntime has for a browser's processor and graphics card.

The graph reads one row of tokens after those whose keys and values it is given, so that a prompt and one more token
of an answer are the same call. Its inputs are

    tokens [1, new]
    length []       how many tokens there are with the new ones
    last_place [1]  the place of the last of them: length - 1
    past_key_0, past_value_0, past_key_1, ... [1, key heads, past, width]

and its outputs, at the last token, `output` [1, vocabulary], of a reward model [1, 1], and `key_0`, `value_0`, ...,
the next call's past. Imported late: it needs torch.
"""

import math
from typing import Any

import numpy as np
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from transformers import LlamaModel

OPSET = helper.make_opsetid("", 21)
MICROSOFT = helper.make_opsetid("com.microsoft", 1)  # onnxruntime's own operators
FORMAT = 10  # of the file, as old as the operators
PRODUCT = "stagewise"
HEAD = 16  # what the width of a head must be divisible by
LARGEST = 127  # of the signed whole numbers in 8 bits
GROUP = 32  # weights that have a scale in common, if a row is divided by it


class Graph:
    """Nodes and weights, as they are added."""

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []

    def add(self, operator: str, inputs: list[str], *outputs: str, domain: str = "", **settings: Any) -> str:
        """One more node. Returns the name of its first output."""
        self.nodes.append(helper.make_node(operator, inputs, outputs, outputs[0], domain=domain, **settings))
        return outputs[0]

    def constant(self, name: str, values: np.ndarray) -> str:
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def matrix(self, name: str, *weights: torch.Tensor) -> str:
        """A matrix [output, input] of one or more weights: as they are, or in 8 bits, with a scale for each group.

        onnxruntime multiplies the scales in when it loads the graph, and then computes in 32 bits. The 8 bits are
        for the way to the browser.
        """
        values = np.concatenate([array(weight) for weight in weights])
        if self.bits == 32:
            return self.constant(name, values)
        whole, scale = in_eight_bits(values)
        numbers = self.add("Cast", [self.constant(f"{name}.whole", whole)], f"{name}.numbers", to=TensorProto.FLOAT)
        scaled = self.add("Mul", [numbers, self.constant(f"{name}.scale", scale)], f"{name}.scaled")
        return self.add("Reshape", [scaled, self.constant(f"{name}.shape", np.array(values.shape))], name)

    def product(self, hidden: str, matrix: str, name: str) -> str:
        return self.add("MatMul", [hidden, self.add("Transpose", [matrix], f"{name}.turned", perm=[1, 0])], name)

    def linear(self, hidden: str, name: str, *layers: Any) -> str:
        """Linear layers of the same input, side by side."""
        return self.product(hidden, self.matrix(f"{name}.weight", *(layer.weight for layer in layers)), name)

    def normal(self, hidden: str, name: str, norm: Any) -> str:
        scale = self.constant(f"{name}.weight", array(norm.weight))
        return self.add("SimplifiedLayerNormalization", [hidden, scale], name, axis=-1, epsilon=norm.variance_epsilon)


def in_eight_bits(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A matrix [output, input] as whole numbers in groups, and the scale of each group, [output, groups, ...]."""
    groups = values.reshape(len(values), -1, math.gcd(values.shape[1], GROUP))
    scale = np.maximum(np.abs(groups).max(-1, keepdims=True), np.finfo(np.float32).tiny) / LARGEST
    return np.rint(groups / scale).astype(np.int8), scale


def round_weights(model: Any) -> None:
    """Give a model's matrices, in place, the values that they have in a graph of 8 bits."""
    for weight in model.parameters():
        if weight.dim() == 2:
            whole, scale = in_eight_bits(array(weight))
            weight.data.copy_(torch.from_numpy((whole * scale).reshape(weight.shape)))


def has_graph(model: Any) -> bool:
    """Whether `llama_graph` computes what the model does: a plain Llama, of a shape that onnxruntime can turn."""
    return (
        isinstance(model.model, LlamaModel)
        and model.config.hidden_act == "silu"
        and model.config.head_dim % HEAD == 0
        and not any(name.endswith("bias") for name, _ in model.named_parameters())
    )


def llama_graph(model: Any, bits: int) -> ModelProto:
    """The graph of a language model, or of a reward model, with its weights in 8 or 32 bits."""
    body, config, graph = model.model, model.config, Graph(bits)
    positions = torch.arange(config.max_position_embeddings)[None]
    for name, waves in zip(("cosines", "sines"), body.rotary_emb(body.embed_tokens.weight, positions), strict=True):
        # Both halves of a head turn by the same angles.
        graph.constant(name, array(waves[0, :, : waves.shape[-1] // 2]))
    embeddings = graph.matrix("embeddings", body.embed_tokens.weight)
    hidden = graph.add("Gather", [embeddings, "tokens"], "embedded")
    for number, layer in enumerate(body.layers):
        hidden = graph.add("Add", [hidden, attention(graph, number, layer, config, hidden)], f"{number}.attended")
        hidden = graph.add("Add", [hidden, feed_forward(graph, number, layer, hidden)], f"{number}.done")
    last = graph.add("Gather", [hidden, graph.constant("at_the_end", np.array(-1))], "last", axis=1)
    normal = graph.normal(last, "norm", body.norm)
    head = model.lm_head if hasattr(model, "lm_head") else model.score
    if head.weight is body.embed_tokens.weight:
        graph.product(normal, embeddings, "output")
    else:
        graph.linear(normal, "output", head)
    return whole(graph, config)


def attention(graph: Graph, number: int, layer: Any, config: Any, hidden: str) -> str:
    heads = layer.self_attn
    normal = graph.normal(hidden, f"{number}.attention_norm", layer.input_layernorm)
    packed = graph.linear(normal, f"{number}.attend", heads.q_proj, heads.k_proj, heads.v_proj)
    past = [f"past_key_{number}", f"past_value_{number}"]
    attended = graph.add(
        "GroupQueryAttention",
        [packed, "", "", *past, "last_place", "length", "cosines", "sines"],
        f"{number}.heads",
        f"key_{number}",
        f"value_{number}",
        domain=MICROSOFT.domain,
        num_heads=config.num_attention_heads,
        kv_num_heads=config.num_key_value_heads,
        scale=heads.scaling,
        do_rotary=1,
    )
    return graph.linear(attended, f"{number}.from_heads", heads.o_proj)


def feed_forward(graph: Graph, number: int, layer: Any, hidden: str) -> str:
    normal = graph.normal(hidden, f"{number}.feed_forward_norm", layer.post_attention_layernorm)
    gate = graph.linear(normal, f"{number}.gate", layer.mlp.gate_proj)
    up = graph.linear(normal, f"{number}.up", layer.mlp.up_proj)
    # SiLU, under the name that it has there.
    opened = graph.add("QuickGelu", [gate], f"{number}.opened", domain=MICROSOFT.domain, alpha=1.0)
    wide = graph.add("Mul", [opened, up], f"{number}.wide")
    return graph.linear(wide, f"{number}.narrow", layer.mlp.down_proj)


def whole(graph: Graph, config: Any) -> ModelProto:
    """The model file, with the types and shapes of what goes in and out."""
    numbers = range(config.num_hidden_layers)
    kept = [1, config.num_key_value_heads, None, config.head_dim]
    inputs = [
        helper.make_tensor_value_info("tokens", TensorProto.INT64, [1, None]),
        helper.make_tensor_value_info("length", TensorProto.INT32, []),
        helper.make_tensor_value_info("last_place", TensorProto.INT32, [1]),
    ]
    outputs = [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, None])]
    for name in (f"{part}_{number}" for number in numbers for part in ("key", "value")):
        inputs.append(helper.make_tensor_value_info(f"past_{name}", TensorProto.FLOAT, kept))
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, kept))
    made = helper.make_graph(graph.nodes, PRODUCT, inputs, outputs, graph.weights)
    return helper.make_model(made, opset_imports=[OPSET, MICROSOFT], ir_version=FORMAT, producer_name=PRODUCT)


def array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().float().cpu().numpy()
