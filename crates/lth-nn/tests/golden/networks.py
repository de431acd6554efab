"""One training step and one evaluation of the papers' networks, in float64, with weights computed from names. Writes
networks.json into the current folder.

ResNet-50 and the body of VGG-16 are torchvision's; VGG-16's convolutions have no bias here, no pooling follows the last
stage, and one linear layer `classifier` reads the average. ResNet-20 is written out as implementations for PyTorch have
it: option A is every other row and column with `planes // 4` channels of zeros on either side.

Ours was made with torch 2.15.0, torchvision 0.29.2 and numpy 2.4.6 on a CPU, one thread."""
import json
import numpy as np, torch, torchvision
from torch import nn
from torch.nn import functional as F
from named import fill, uniform, x

torch.set_num_threads(1)

class Block(nn.Module):
    def __init__(self, inputs, planes, stride, option):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False); self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False); self.bn2 = nn.BatchNorm2d(planes)
        self.planes, self.changes, self.option = planes, stride != 1 or inputs != planes, option
        if self.changes and option == "B":
            self.downsample = nn.Sequential(nn.Conv2d(inputs, planes, 1, stride, bias=False), nn.BatchNorm2d(planes))

    def forward(self, x):
        around = x
        if self.changes:
            if self.option == "A": around = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.planes // 4, self.planes // 4))
            else: around = self.downsample(x)
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + around)

class ResNet20(nn.Module):
    def __init__(self, option, classes):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False); self.bn1 = nn.BatchNorm2d(16)
        inputs = 16
        for stage, planes in enumerate([16, 32, 64]):
            blocks = []
            for block in range(3):
                blocks.append(Block(inputs, planes, 2 if stage > 0 and block == 0 else 1, option)); inputs = planes
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(64, classes)

    def forward(self, x):
        x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
        return self.fc(x.mean((2, 3)))

class Vgg16(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.features = torchvision.models.vgg16_bn().features[:-1]
        for layer in self.features:
            if isinstance(layer, nn.Conv2d): layer.bias = None
        self.classifier = nn.Linear(512, classes)

    def forward(self, x): return self.classifier(self.features(x).mean((2, 3)))

def summary(name, tensor):
    """Length, and the product with numbers in [-2, 2) from the name: a wrong element anywhere shows."""
    v = tensor.detach().double().numpy().ravel()
    probe = (uniform("probe." + name, v.size).astype(np.float64) - 0.5) * 4
    return [float(np.sqrt((v * v).sum())), float((v * probe).sum())]

CLASSES = 5
out = {"versions": {"torch": torch.__version__, "torchvision": torchvision.__version__, "numpy": np.__version__}}
for name, make, side in [
    ("resnet-20", lambda: ResNet20("A", CLASSES), 32),
    ("resnet-20-b", lambda: ResNet20("B", CLASSES), 32),
    ("vgg-16", lambda: Vgg16(CLASSES), 32),
    ("resnet-50", lambda: torchvision.models.resnet50(num_classes=CLASSES), 64),
]:
    m = fill(make()).double()
    inp, tgt = x("input", (4, 3, side, side)).double(), torch.tensor([0, 1, 4, 3])
    with torch.no_grad(): evaluated = m.eval()(inp)
    logits = m.train()(inp); loss = F.cross_entropy(logits, tgt); loss.backward()
    out[name] = {
        "side": side, "eval_logits": evaluated.flatten().tolist(), "train_logits": logits.flatten().tolist(), "loss": loss.item(),
        "gradients": {k: summary(k, p.grad) for k, p in m.named_parameters()},
        "statistics": {k: summary(k, b) for k, b in m.named_buffers() if not k.endswith("num_batches_tracked")},
    }
json.dump(out, open("networks.json", "w"), indent=0)
