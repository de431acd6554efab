"""fastai's head, small, in evaluation mode. Writes head.safetensors into the current folder.

Ours was made with fastai 2.8.12 and torch 2.15.0 on a CPU, one thread, float32."""
import torch
from fastai.vision.learner import create_head
from safetensors.torch import save_file
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(310)
head = create_head(6, 2, lin_ftrs=[16])
for m in head.modules():                          # so that every BatchNorm value matters
    if isinstance(m, nn.BatchNorm1d):
        m.weight.data.uniform_(0.5, 1.5)
        m.bias.data.normal_(0, 0.3)
        m.running_mean.normal_(0, 0.3)
        m.running_var.uniform_(0.5, 1.5)
head.eval()
x = torch.randn(5, 6, 3, 2, generator=torch.Generator().manual_seed(311))
with torch.no_grad():
    y = head(x)
weights = {f"head.{k}": v for k, v in head.state_dict().items() if not k.endswith("num_batches_tracked")}
save_file({"input": x, "output": y, **weights}, "head.safetensors")
