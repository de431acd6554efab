#!/usr/bin/env python3
"""Writes autograd.safetensors of this folder: two networks, their data and PyTorch's own autograd on them.

    python make_autograd.py [--out DIR]

Needs torch and safetensors. Runs on the CPU in float64 with one thread. The names of the tensors are explained in
README.md.
"""
import argparse
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import save_file

ap = argparse.ArgumentParser()
ap.add_argument("--out", default=str(Path(__file__).resolve().parent))
args = ap.parse_args()
torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)
torch.set_default_dtype(torch.float64)


class Convnet(nn.Module):
    """Convolution, BatchNorm, ReLU, max pool, twice; the second convolution has groups. A linear layer."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 8, 3, padding=1, groups=2, bias=False)
        self.bn2 = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8 * 2 * 2, 5)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        x = F.max_pool2d(F.relu(self.bn2(self.conv2(x))), 2)
        return self.fc(x.flatten(1))


class Block(nn.Module):
    def __init__(self, d, heads):
        super().__init__()
        self.heads = heads
        self.ln1, self.ln2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.query, self.key, self.value, self.out = (nn.Linear(d, d) for _ in range(4))
        self.up, self.down = nn.Linear(d, 2 * d), nn.Linear(2 * d, d)

    def forward(self, x):
        n, t, d = x.shape
        h = self.ln1(x)
        q, k, v = (f(h).view(n, t, self.heads, -1).transpose(1, 2) for f in (self.query, self.key, self.value))
        a = torch.softmax(q @ k.transpose(2, 3) / (d // self.heads) ** 0.5, -1) @ v
        x = x + self.out(a.transpose(1, 2).reshape(n, t, d))
        return x + self.down(F.relu(self.up(self.ln2(x))))


class Transformer(nn.Module):
    """Two pre-norm blocks over tokens [N, T, 8], two heads, ReLU; the mean over tokens into a linear layer."""

    def __init__(self):
        super().__init__()
        self.position = nn.Parameter(torch.randn(5, 8) * 0.3)
        self.block0, self.block1 = Block(8, 2), Block(8, 2)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.block1(self.block0(x + self.position)).mean(1))


out = {}
CASES = {"convnet": (Convnet, (3, 8, 8), 5), "transformer": (Transformer, (5, 8), 4)}
for seed, (net_name, (make, shape, n_classes)) in enumerate(CASES.items()):
    torch.manual_seed(seed)
    net = make()
    with torch.no_grad():
        for name, p in net.named_parameters():
            if p.dim() == 1:
                p.add_(0.2 * torch.randn_like(p))
        for name, b in net.named_buffers():
            if name.endswith("running_mean"):
                b.copy_(0.3 * torch.randn_like(b))
            if name.endswith("running_var"):
                b.copy_(0.5 + torch.rand_like(b))
    state = {k: v.clone() for k, v in net.state_dict().items()}
    net.train()  # statistics of the batch: BatchNorm's own derivative is part of what is checked
    params = {k: p for k, p in net.named_parameters()}
    for k, v in state.items():
        if "num_batches" not in k:
            out[f"{net_name}.weight.{k}"] = v
    batches = [(torch.randn(6, *shape), torch.randint(0, n_classes, (6,))) for _ in range(3)]
    prunable = [k for k, p in params.items() if p.dim() >= 2 and k != "position"]
    before = {k: (params[k] + 0.3 * torch.randn_like(params[k])).detach() for k in prunable}
    previous = {k: (params[k] + 0.1 * torch.randn_like(params[k])).detach() for k in prunable}
    norms, hooks = {}, []
    for mod_name, m in net.named_modules():
        if f"{mod_name}.weight" in prunable:
            def hook(m, xs, name=f"{mod_name}.weight"):
                x = xs[0].detach()
                dims = [0, 2, 3] if x.dim() == 4 else list(range(x.dim() - 1))
                s, n = norms.get(name, (0, 0))
                norms[name] = (s + (x * x).sum(dims), n + x.shape[0])
            hooks.append(m.register_forward_pre_hook(hook))

    # A gate, a factor of 1, on every output of a layer: behind its BatchNorm if it has one. Autograd itself differentiates.
    gates, gated = {}, {}
    for k in prunable:
        at = {"conv1.weight": "bn1", "conv2.weight": "bn2"}.get(k, k.removesuffix(".weight"))
        gates[k] = torch.ones(params[k].shape[0], requires_grad=True)

        def gate(m, xs, y, name=k):
            return y * (gates[name].view(-1, 1, 1) if y.dim() == 4 else gates[name])
        hooks.append(net.get_submodule(at).register_forward_hook(gate))

    def grads(loss, **kw):
        return dict(zip(params, torch.autograd.grad(loss, list(params.values()), **kw)))

    first, squares, hg = {}, {}, None
    for i, (x, y) in enumerate(batches):
        out[f"{net_name}.x{i}"], out[f"{net_name}.y{i}"] = x, y
        loss = F.cross_entropy(net(x), y)
        g = grads(loss, retain_graph=True)
        for k, z in zip(gates, torch.autograd.grad(loss, list(gates.values()))):
            gated[k] = gated.get(k, 0) + z ** 2 / len(batches)
        for k in params:
            first[k] = first.get(k, 0) + g[k] / len(batches)
            squares[k] = squares.get(k, 0) + g[k] ** 2 / len(batches)
    for h in hooks:
        h.remove()
    # GraSP: all batches as one, logits over 200, double backward.
    x, y = torch.cat([b[0] for b in batches]), torch.cat([b[1] for b in batches])
    g = grads(F.cross_entropy(net(x) / 200, y), create_graph=True)
    hg = grads(sum((v * v.detach()).sum() for v in g.values()))
    # SynFlow: absolute parameters and statistics, one sample of ones.
    net.eval()
    net.load_state_dict({k: v.abs() for k, v in state.items()})
    flow = grads(net(torch.ones(1, *shape)).sum(), allow_unused=True)
    net.load_state_dict(state)

    for k in prunable:
        w, w0, p = params[k].detach(), before[k], previous[k]
        out[f"{net_name}.initial.{k}"], out[f"{net_name}.previous.{k}"] = w0, p
        total, n = norms[k]
        norm = (total / n).sqrt()
        if k == "conv2.weight":  # two groups of three channels, four filters each
            norm = norm.view(2, 1, 3).expand(2, 4, 3).reshape(8, 3)
        spread = norm.view(*norm.shape, *[1] * (w.dim() - 2))
        order = torch.sort(w.abs().flatten(), descending=True, stable=True)
        lamp = torch.empty(w.numel())
        lamp[order.indices] = order.values ** 2 / torch.cumsum(order.values ** 2, 0)
        scores = {
            "large_final": w.abs(), "squared_final": w * w, "small_final": -w.abs(),
            "large_init": w0.abs(), "small_init": -w0.abs(),
            "large_init_large_final": torch.minimum(w0.abs(), w.abs()),
            "small_init_small_final": -torch.maximum(w0.abs(), w.abs()),
            "magnitude_increase": w.abs() - w0.abs(), "movement": (w - w0).abs(), "movmag": (w * (w - w0)).abs(),
            "updating_magnitude_increase": w.abs() - p.abs(), "updating_movement": (w - p).abs(),
            "updating_movmag": (w * (w - p)).abs(),
            "taylor": w * w * squares[k], "snip": (w * first[k]).abs(), "grasp": w * hg[k],
            "empirical_fisher": 0.5 * w * w * squares[k], "synflow": (w * flow[k]).abs(), "wanda": w.abs() * spread,
            "lamp": lamp.view_as(w),
            "taylor_gate": gated[k].view(-1, *[1] * (w.dim() - 1)).expand_as(w),
        }
        bn = {"conv1.weight": "bn1.weight", "conv2.weight": "bn2.weight"}.get(k)
        if bn:
            scores["batch_norm_scale"] = params[bn].detach().abs().view(-1, 1, 1, 1).expand_as(w)
        for criterion, score in scores.items():
            out[f"{net_name}.score.{criterion}.{k}"] = score.to(torch.float32)
save_file({k: v.detach().clone().contiguous() for k, v in out.items()}, str(Path(args.out) / "autograd.safetensors"))
