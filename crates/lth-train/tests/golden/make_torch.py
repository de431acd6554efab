"""Writes torch.safetensors beside this file: trajectories of PyTorch's optimisers, from the start and the gradients of
optimizers.safetensors. `python make_torch.py` with torch 2.15.0, float32 on a CPU."""

import pathlib

import torch
from safetensors.torch import load_file, save_file

HERE = pathlib.Path(__file__).parent
GOLDEN = load_file(HERE / "optimizers.safetensors")


def trajectory(make, **constants):
    p = torch.nn.Parameter(GOLDEN["start"].clone())
    optimizer, out = make([p], **constants), []
    for gradient in GOLDEN["grads"]:
        p.grad = gradient.clone()
        optimizer.step()
        out.append(p.detach().clone())
    return torch.stack(out)


def clipped(largest):
    """The golden gradients, each scaled by `clip_grad_norm_` together with a second one of twice its values."""
    out = []
    for gradient in GOLDEN["grads"]:
        pair = [torch.nn.Parameter(GOLDEN["start"].clone()) for _ in range(2)]
        pair[0].grad, pair[1].grad = gradient.clone(), 2 * gradient
        torch.nn.utils.clip_grad_norm_(pair, largest)
        out.append(pair[0].grad.clone())
    return torch.stack(out)


def changing_momentum(lr):
    """SGD whose momentum is another at every step, as one-cycle schedules have it."""
    p = torch.nn.Parameter(GOLDEN["start"].clone())
    optimizer, out = torch.optim.SGD([p], lr=lr, momentum=0.9), []
    for i, gradient in enumerate(GOLDEN["grads"]):
        optimizer.param_groups[0]["momentum"] = 0.95 - 0.02 * i
        p.grad = gradient.clone()
        optimizer.step()
        out.append(p.detach().clone())
    return torch.stack(out)


tensors = {"clip_norm_1.5": clipped(1.5)}
for lr in (0.001, 0.05):
    tensors |= {
        f"adam_lr{lr}": trajectory(torch.optim.Adam, lr=lr),
        f"adam_coupled_lr{lr}": trajectory(torch.optim.Adam, lr=lr, weight_decay=0.01),
        f"adamw_lr{lr}": trajectory(torch.optim.AdamW, lr=lr),
        f"sgd_nesterov_lr{lr}": trajectory(torch.optim.SGD, lr=lr, momentum=0.9, weight_decay=0.01, nesterov=True),
        f"sgd_changing_momentum_lr{lr}": changing_momentum(lr),
    }
save_file(tensors, HERE / "torch.safetensors")
