"""One step of torchvision's ResNet-18 with weights computed from names, so that they need no file. Writes
resnet18_named.safetensors and resnet18_named.json into the current folder.

Ours were made with torch 2.15.0, torchvision 0.29.2 and numpy 2.4.6 on a CPU, one thread, float32."""
import json, math
import numpy as np, torch, torchvision
from safetensors.numpy import save_file

torch.set_num_threads(1)
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
    n = int(np.prod(shape)); u = uniform(name, n)
    if name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1): v = np.float32(0.5) + u
    elif len(shape) == 1: v = (u - np.float32(0.5)) * np.float32(0.25)
    else:
        fan_in = int(np.prod(shape[1:])); k = int(round(math.log2(math.sqrt(24.0 / fan_in))))
        v = (u - np.float32(0.5)) * np.float32(2.0 ** k)          # a power of two: exact on both sides
    return v.reshape(shape)

def network():
    m = torchvision.models.resnet18(num_classes=8)
    sd = m.state_dict()
    for k, v in sd.items():
        if not k.endswith("num_batches_tracked"): sd[k] = torch.from_numpy(value(k, tuple(v.shape)).copy())
    m.load_state_dict(sd); return m

def x(name, shape): return torch.from_numpy(((uniform(name, int(np.prod(shape))) - np.float32(0.5)) * np.float32(4)).reshape(shape).copy())

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
