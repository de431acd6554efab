#!/usr/bin/env python3
"""Writes the golden values of this folder.

    python make_criteria.py --fasterai DIR [--out DIR]

DIR is a checkout of https://github.com/FasterAI-Labs/fasterai (the folder that holds `fasterai/`). It is imported, nothing
of it is copied. Needs torch, fastai, safetensors, einops. Runs on the CPU in float32, with one thread.
"""
import argparse, copy, sys
from pathlib import Path

import torch
import torch.nn as nn
from safetensors.torch import save_file

ap = argparse.ArgumentParser()
ap.add_argument("--fasterai", required=True)
ap.add_argument("--out", default=str(Path(__file__).resolve().parent))
args = ap.parse_args()
torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)


def gen(seed):
    return torch.Generator().manual_seed(seed)


def save(name, tensors):
    save_file({k: v.detach().clone().contiguous() for k, v in tensors.items()}, str(Path(args.out) / f"{name}.safetensors"))


sys.path.insert(0, args.fasterai)
import fasterai.core.criteria as C  # noqa: E402
from fasterai.core.granularity import Granularities  # noqa: E402
from fasterai.sparse.sparsifier import Sparsifier  # noqa: E402

CRITERIA = ["large_final", "squared_final", "small_final", "large_init", "small_init", "large_init_large_final",
            "small_init_small_final", "magnitude_increase", "movement", "updating_magnitude_increase",
            "updating_movement", "updating_movmag"]
LAYERS = {"conv": (lambda: nn.Conv2d(4, 8, 3, bias=False), nn.Conv2d, (8, 4, 3, 3), (5, 4, 6, 6)),
          "linear": (lambda: nn.Linear(10, 6, bias=False), nn.Linear, (6, 10), (5, 10))}
inputs, scores_out = {}, {}


for li, (lname, (make, kind, shape, xshape)) in enumerate(LAYERS.items()):
    w = torch.randn(shape, generator=gen(400 + 10 * li))
    init = w + 0.5 * torch.randn(shape, generator=gen(401 + 10 * li))
    prev = w + 0.2 * torch.randn(shape, generator=gen(402 + 10 * li))
    grad = torch.randn(shape, generator=gen(403 + 10 * li))
    calib = torch.randn(xshape, generator=gen(404 + 10 * li))
    inputs |= {f"{lname}.weight": w, f"{lname}.init": init, f"{lname}.previous": prev, f"{lname}.grad": grad, f"{lname}.calibration": calib}

    def layer():
        m = make()
        m.weight.data = w.clone()
        m.register_buffer("_init_weights", init.clone())
        m.register_buffer("_old_weights", prev.clone())
        return m

    for g in Granularities.allowed_granularities(make()):
        for cname in CRITERIA:
            m = layer()
            key = f"{lname}.{cname}.{g}"
            scores_out[key] = getattr(C, cname)(m, g)
        m = layer()
        crit = copy.copy(C.wanda)
        crit.calibrate(nn.Sequential(m), calib, layer_type=kind)
        inputs[f"{lname}.wanda_scale"] = crit.scale[m]
        key = f"{lname}.wanda.{g}"
        scores_out[key] = crit(m, g)
        m = layer()
        m.weight.grad = grad.clone()
        key = f"{lname}.grad_crit.{g}"
        scores_out[key] = C.grad_crit(m, g).detach()

    # two passes through the whole sparsifier: 30 %, then 50 % with the first mask in place
    for g in ("weight", "column"):
        m = layer()
        sp = Sparsifier(nn.Sequential(m), g, "local", C.large_final, layer_type=kind)
        for s in (30, 50):
            sp.sparsify_layer(m, s)
            scores_out[f"{lname}.two_pass.{g}.weight{s}"] = m.weight.detach().clone()
save("criteria_inputs", inputs)
save("criteria_scores", scores_out)
