"""One step of torchvision's ResNet-18 with weights computed from names, so that they need no file. Writes
resnet18_named.safetensors and resnet18_named.json into the current folder.

Ours were made with torch 2.15.0, torchvision 0.29.2 and numpy 2.4.6 on a CPU, one thread, float32."""
import json
import numpy as np, torch, torchvision
from safetensors.numpy import save_file
from named import fill, value, x

torch.set_num_threads(1)
def network(): return fill(torchvision.models.resnet18(num_classes=8))

out, info = {}, {"versions": {"torch": torch.__version__, "torchvision": torchvision.__version__, "numpy": np.__version__}}
m = network().eval()
inp = x("input.eval", (4, 3, 64, 64))
with torch.no_grad(): out["eval.logits"] = m(inp).numpy()
m = network().train()
inp, tgt = x("input.train", (8, 3, 64, 64)), torch.tensor([0, 1, 2, 3, 4, 5, 6, 7])
lg = m(inp); loss = torch.nn.functional.cross_entropy(lg, tgt); loss.backward()
out["train.logits"] = lg.detach().numpy(); out["train.loss"] = loss.detach().numpy().reshape(1)
g = {k: p.grad for k, p in m.named_parameters()}
for k in ["conv1.weight", "bn1.weight", "bn1.bias", "layer2.0.downsample.0.weight", "fc.weight", "fc.bias"]: out["train.grad." + k] = g[k].numpy()
info["gradient_l2"] = {k: float(v.double().norm()) for k, v in g.items()}
for k in ["bn1", "layer1.0.bn2", "layer2.0.downsample.1", "layer4.1.bn2"]:
    b = dict(m.named_modules())[k]; out[f"train.after.{k}.running_mean"] = b.running_mean.numpy(); out[f"train.after.{k}.running_var"] = b.running_var.numpy()
info["first_values"] = {k: [float(a) for a in value(k, s).ravel()[:3]] for k, s in {"conv1.weight": (64, 3, 7, 7), "bn1.weight": (64,), "bn1.bias": (64,), "bn1.running_mean": (64,), "bn1.running_var": (64,), "fc.weight": (8, 512), "layer4.0.conv1.weight": (512, 256, 3, 3)}.items()}
info["input_first_values"] = {"input.eval": [float(a) for a in x("input.eval", (4, 3, 64, 64)).ravel()[:3]]}
save_file(out, "resnet18_named.safetensors")

json.dump(info, open("resnet18_named.json", "w"), indent=1)
