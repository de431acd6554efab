#!/usr/bin/env python3
"""Loads a ticket or trained network into torchvision's resnet18 and compares what it answers with our own side.

    cargo run --example torch_reference TICKET REFERENCE
    python scripts/load_in_torch.py TICKET REFERENCE

TICKET is a file of `lth reproduce`: runs/<run>/fits/ticket/level-01/seed-42/trained.safetensors, as it is or expanded
(`lth expand`). With torchvision's head (`--head fc`)
every tensor must fit by name and shape, and the logits are compared; with fastai's head the body must fit, and the 512
pooled features are compared. Exit code 1 if anything differs by more than 1e-4.

Needs: pip install torch torchvision safetensors numpy
"""

import json
import sys

import torch
import torchvision
from read_ticket import read
from safetensors import safe_open
from safetensors.torch import load_file

TOLERANCE = 1e-4


def main() -> int:
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    ticket, reference = sys.argv[1:]
    with safe_open(ticket, framework="pt") as file:
        header = file.metadata()
    network = json.loads(header["network"])
    print(f"{header['stage']} of {network['name']}, head {network['head']}, content {header['content_sha256'][:16]}")

    if header["form"] == "compact":
        weights = {name: torch.from_numpy(array.copy()) for name, (_, array) in read(ticket)[1].items()}
    else:
        weights = load_file(ticket)
    expected = load_file(reference)
    has_fc = network["head"] == "fc"
    model = torchvision.models.resnet18(num_classes=network["n_outputs"])
    if not has_fc:
        weights = {name: tensor for name, tensor in weights.items() if not name.startswith("head.")}
        model.fc = torch.nn.Identity()
    # The count of batches is PyTorch's own and no weight; everything else must be there, and nothing more.
    counts = {name: value for name, value in model.state_dict().items() if name.endswith("num_batches_tracked")}
    model.load_state_dict({**counts, **weights}, strict=True)
    model.eval()

    compared = "logits" if has_fc else "features"
    with torch.no_grad():
        got = model(expected["input"])
    difference = (got - expected[compared]).abs().max().item()
    print(f"{compared} of torchvision:\n{got if has_fc else got[:, :6]}")
    print(f"largest difference from ours: {difference:.2e} (allowed {TOLERANCE:.0e}), largest value {got.abs().max():.3f}")
    zeros = sum(int((tensor == 0).sum()) for name, tensor in weights.items() if tensor.dim() == 4)
    total = sum(tensor.numel() for tensor in weights.values() if tensor.dim() == 4)
    print(f"convolutions: {zeros} of {total} weights are 0 ({100 * zeros / total:.2f} %)")
    # Not `difference > TOLERANCE`: a NaN must fail, too.
    return 0 if difference <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
