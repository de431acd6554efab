"""The layers of a transformer and their gradients. Writes transformer.json into the current folder.

Ours was made with torch 2.15.0 on a CPU, one thread, float64. Every case is inputs, output and, for a loss that is the
sum of output * cotangent, the gradient of every input."""
import json
import math

import torch
from torch import nn
from torch.nn import functional as F

torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)
generator = torch.Generator().manual_seed(421)


def draw(*shape, scale=1.0):
    # Through float32, so that a float32 test starts from the same values.
    return (torch.randn(*shape, generator=generator) * scale).float().double()


def packed(tensor):
    return {"shape": list(tensor.shape), "values": tensor.detach().flatten().tolist()}


def case(inputs, function):
    inputs = {name: tensor.requires_grad_() for name, tensor in inputs.items()}
    output = function(**inputs)
    cotangent = draw(*output.shape)
    gradients = torch.autograd.grad((output * cotangent).sum(), list(inputs.values()))
    return {
        "inputs": {name: packed(tensor) for name, tensor in inputs.items()},
        "output": packed(output),
        "cotangent": packed(cotangent),
        "gradients": {name: packed(gradient) for name, gradient in zip(inputs, gradients)},
    }


def rotated(x, interleaved):
    """Pairs of values as complex numbers, turned by position * theta^(-2i / size)."""
    length, size = x.shape[-2:]
    angles = torch.outer(torch.arange(length).double(), 10000.0 ** (-torch.arange(0, size, 2).double() / size))
    turns = torch.polar(torch.ones_like(angles), angles)
    if interleaved:
        pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], size // 2, 2))
        return torch.view_as_real(pairs * turns).flatten(-2)
    pairs = torch.complex(x[..., : size // 2], x[..., size // 2 :]) * turns
    return torch.cat([pairs.real, pairs.imag], -1)


def attention(x, mask=None, rotary=False, **weights):
    """nn.MultiheadAttention, or with rotary embedding F.scaled_dot_product_attention between the projections."""
    size = x.shape[-1]
    of = lambda leaf: [weights[f"{name}_proj.{leaf}"] for name in ("q", "k", "v")]
    if not rotary:
        return F.multi_head_attention_forward(
            *[x.transpose(0, 1)] * 3, size, HEADS, torch.cat(of("weight")), torch.cat(of("bias")), None, None, False, 0.0,
            weights["out_proj.weight"], weights["out_proj.bias"],
            attn_mask=None if mask is None else ~mask.repeat_interleave(HEADS, 0), need_weights=False,
        )[0].transpose(0, 1)
    heads = [F.linear(x, w, b).unflatten(-1, (HEADS, -1)).transpose(1, 2) for w, b in zip(of("weight"), of("bias"))]
    query, key = rotated(heads[0], False), rotated(heads[1], False)
    y = F.scaled_dot_product_attention(query, key, heads[2], is_causal=True).transpose(1, 2).flatten(2)
    return F.linear(y, weights["out_proj.weight"], weights["out_proj.bias"])


HEADS, SIZE = 2, 8
projections = lambda: {
    f"{name}_proj.{leaf}": draw(*shape, scale=1 / math.sqrt(SIZE))
    for name in ("q", "k", "v", "out")
    for leaf, shape in (("weight", (SIZE, SIZE)), ("bias", (SIZE,)))
}
# The second sample's last position is padding; nobody sees the future.
seen = torch.ones(2, 4, 4).tril().bool()
seen[1, :3, 3] = False

norm = lambda: {"x": draw(2, 3, 6, scale=2.0) + 3.0, "weight": draw(6), "bias": draw(6)}
without_bias = lambda: {name: tensor for name, tensor in norm().items() if name != "bias"}
cases = {
    "layer_norm": case(norm(), lambda x, weight, bias: F.layer_norm(x, (6,), weight, bias, 1e-5)),
    "layer_norm_no_bias": case(without_bias(), lambda x, weight: F.layer_norm(x, (6,), weight, None, 1e-3)),
    "rms_norm": case(without_bias(), lambda x, weight: F.rms_norm(x, (6,), weight, 1e-6)),
    "softmax_last": case({"x": draw(2, 3, 5, scale=30.0)}, lambda x: x.softmax(-1)),
    "softmax_middle": case({"x": draw(2, 3, 5)}, lambda x: x.softmax(1)),
    "rope": case({"x": draw(2, 2, 5, 6)}, lambda x: rotated(x, False)),
    "rope_interleaved": case({"x": draw(2, 2, 5, 6)}, lambda x: rotated(x, True)),
    "attention": case({"x": draw(2, 4, SIZE), **projections()}, attention),
    "attention_masked": case({"x": draw(2, 4, SIZE), **projections()}, lambda **inputs: attention(mask=seen, **inputs)),
    "attention_rotary": case({"x": draw(2, 4, SIZE), **projections()}, lambda **inputs: attention(rotary=True, **inputs)),
}
with open("transformer.json", "w") as file:
    json.dump(cases, file, separators=(",", ":"))
    file.write("\n")
