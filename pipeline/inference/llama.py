"""One more token for each row of a Llama: what its modules compute, without what calling them costs.

In a model of a few million parameters half of a step goes into modules, hooks and configurations. They hold the
interpreter meanwhile, so that stages that write side by side wait for each other. Imported late: it needs torch.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import Linear, functional
from transformers import LlamaForCausalLM

from pipeline.inference.cache import PlacesCache


def is_plain_llama(model: Any) -> bool:
    """Whether `LlamaStep` computes what the model does: weights as they were trained, no adapter, no compression."""
    linears = [module for module in model.modules() if isinstance(module, Linear)]
    return (
        type(model) is LlamaForCausalLM
        and model.config.hidden_act == "silu"
        and all(type(module) is Linear and module.bias is None for module in linears)
    )


@dataclass(frozen=True)
class Layer:
    """The weights of a layer, [input, output], those that multiply the same input in one."""

    attention_norm: torch.Tensor
    attend: torch.Tensor  # queries, keys and values [hidden, (heads + 2 key heads) * width]
    attended: torch.Tensor
    feed_forward_norm: torch.Tensor
    widen: torch.Tensor  # gate and up [hidden, 2 * intermediate]
    narrow: torch.Tensor


class LlamaStep:
    """The step of a Llama that `is_plain_llama` says yes to.

    The weights are the model's own, stored anew: the model's modules keep views of them, with the same values.
    """

    def __init__(self, model: LlamaForCausalLM) -> None:
        body, config = model.model, model.config
        self.dtype, self.epsilon = model.dtype, config.rms_norm_eps
        self.heads = config.num_attention_heads
        self.key_heads = config.num_key_value_heads or self.heads
        self.layers = [
            Layer(
                layer.input_layernorm.weight,
                joined(layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj),
                joined(layer.self_attn.o_proj),
                layer.post_attention_layernorm.weight,
                joined(layer.mlp.gate_proj, layer.mlp.up_proj),
                joined(layer.mlp.down_proj),
            )
            for layer in body.layers
        ]
        self.norm, self.head = body.norm.weight, joined(model.lm_head)
        self.embeddings = body.embed_tokens.weight
        self.scaling = body.layers[0].self_attn.scaling
        positions = torch.arange(config.max_position_embeddings, device=model.device)
        cosines, sines = body.rotary_emb(self.embeddings, positions[None])
        # [positions, 1, 1, width]: the same for all heads.
        self.cosines, self.sines = cosines[0, :, None, None], sines[0, :, None, None]

    def __call__(self, tokens: torch.Tensor, lengths: torch.Tensor, cache: PlacesCache) -> torch.Tensor:
        """Logits [rows, vocabulary] after one more token [rows] of the rows in the cache, which are so long [rows]."""
        mask = cache.opened(lengths, self.dtype)
        cosines, sines = self.cosines[lengths], self.sines[lengths]
        hidden = self.embeddings[tokens]
        for layer, kept in zip(self.layers, cache.places, strict=True):
            heads = self.normal(hidden, layer.attention_norm) @ layer.attend
            heads = heads.unflatten(1, (self.heads + 2 * self.key_heads, -1))[:, :, None]
            turned, values = heads.split([self.heads + self.key_heads, self.key_heads], 1)
            queries, keys = rotated(turned, cosines, sines).split([self.heads, self.key_heads], 1)
            keys, values = kept.update(keys, values)
            attended = functional.scaled_dot_product_attention(
                queries, keys, values, mask, scale=self.scaling, enable_gqa=self.heads != self.key_heads
            )
            hidden = torch.addmm(hidden, attended.flatten(1), layer.attended)
            gate, up = (self.normal(hidden, layer.feed_forward_norm) @ layer.widen).chunk(2, 1)
            hidden = torch.addmm(hidden, functional.silu(gate) * up, layer.narrow)
        return self.normal(hidden, self.norm) @ self.head

    def normal(self, hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return functional.rms_norm(hidden, weight.shape, weight, self.epsilon)


def joined(*linears: Linear) -> torch.Tensor:
    """One weight [input, output] for linear layers of the same input, which from now on have views of it.

    Stored this way round, a CPU multiplies it with few rows in half the time.
    """
    weight = torch.cat([linear.weight.data for linear in linears]).t().contiguous()
    parts = weight.split([linear.out_features for linear in linears], dim=1)
    for linear, part in zip(linears, parts, strict=True):
        linear.weight.data = part.t()
    return weight


def rotated(heads: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
    """Each row turned by its position: rotary embedding (Su et al. 2021, arXiv:2104.09864)."""
    first, second = heads.chunk(2, -1)
    return heads * cosines + torch.cat([-second, first], -1) * sines
