"""Tensors computed from names, so that they need no file; `tests/it/named.rs` computes the same."""
import math
import numpy as np, torch

M = (1 << 64) - 1

def fnv1a(name):
    h = 0xCBF29CE484222325
    for b in name.encode(): h = ((h ^ b) * 0x100000001B3) & M
    return h

def uniform(name, n):
    """u[i] in [0, 1): top 24 bits of splitmix64(fnv1a64(name) + (i + 1) * golden), exact in float32."""
    i = np.arange(1, n + 1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        z = np.uint64(fnv1a(name)) + i * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return ((z >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24))

def value(name, shape):
    """A parameter."""
    n = int(np.prod(shape)); u = uniform(name, n)
    if name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1): v = np.float32(0.5) + u
    elif len(shape) == 1: v = (u - np.float32(0.5)) * np.float32(0.25)
    else:
        fan_in = int(np.prod(shape[1:])); k = int(round(math.log2(math.sqrt(24.0 / fan_in))))
        v = (u - np.float32(0.5)) * np.float32(2.0 ** k)          # a power of two: exact on both sides
    return v.reshape(shape)

def x(name, shape):
    """An input."""
    return torch.from_numpy(((uniform(name, int(np.prod(shape))) - np.float32(0.5)) * np.float32(4)).reshape(shape).copy())

def fill(m):
    """`m` with every parameter and statistic from its name."""
    sd = m.state_dict()
    for k, v in sd.items():
        if not k.endswith("num_batches_tracked"): sd[k] = torch.from_numpy(value(k, tuple(v.shape)).copy())
    m.load_state_dict(sd)
    return m
