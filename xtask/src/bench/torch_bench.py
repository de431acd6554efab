"""PyTorch's and SparseProp's side of `cargo xtask bench`.

Answers one JSON request a line on standard input with one line of JSON on standard output, until standard input ends.
Requests: {"op": "hello"}, {"op": "build", "id", "engine", "figure", "sparsity"}, {"op": "turn", "id", "warmup",
"samples"}, {"op": "drop", "id"}, {"op": "peak"}. An answer holds "error" if the request failed.

Needs torch and torchvision; SparseProp is used where it can be imported (pip install --no-build-isolation sparseprop).
"""

import importlib.metadata
import json
import os
import sys
import time

# What libraries print must not get between the answers.
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

import torch  # noqa: E402
import torchvision  # noqa: E402

try:
    from sparseprop.modules.conv2d import SparseConv2d
except Exception as error:  # noqa: BLE001  any failure to load an extension means that it is not there
    SparseConv2d = None
    print(f"SparseProp is left out: {error}", file=sys.stderr)

THREADS = int(sys.argv[1])
SIDE = 64
torch.set_num_threads(THREADS)


class ConcatPool(torch.nn.Module):
    """The maximum and the average over positions side by side, as fastai's head begins."""

    def forward(self, x):
        return torch.cat([torch.amax(x, (2, 3)), torch.mean(x, (2, 3))], 1)


def network():
    """torchvision's ResNet-18 with fastai's head for two classes."""
    torch.manual_seed(42)
    body = torchvision.models.resnet18(weights=None)
    layers = list(body.children())[:-2]
    head = torch.nn.Sequential(
        ConcatPool(),
        torch.nn.BatchNorm1d(1024),
        torch.nn.Dropout(0.25),
        torch.nn.Linear(1024, 512, bias=False),
        torch.nn.ReLU(inplace=True),
        torch.nn.BatchNorm1d(512),
        torch.nn.Dropout(0.5),
        torch.nn.Linear(512, 2, bias=False),
    )
    return torch.nn.Sequential(torch.nn.Sequential(*layers), head)


def conv4():
    """Frankle & Carbin 2019, figure 2, for two classes: what `lth_nn` has under that name."""
    torch.manual_seed(42)
    layers, channels = [], 3
    for width in (64, 128):
        for _ in range(2):
            layers += [torch.nn.Conv2d(channels, width, 3, padding=1), torch.nn.ReLU(inplace=True)]
            channels = width
        layers.append(torch.nn.MaxPool2d(2))
    layers.append(torch.nn.Flatten())
    for inputs, outputs in ((128 * 8 * 8, 256), (256, 256)):
        layers += [torch.nn.Linear(inputs, outputs), torch.nn.ReLU(inplace=True)]
    return torch.nn.Sequential(*layers, torch.nn.Linear(256, 2))


def freeze_body(model):
    for module in model[0].modules():
        if isinstance(module, torch.nn.Conv2d):
            module.weight.requires_grad_(False)


def prune(model, sparsity):
    """Sets a uniform random choice of each convolution's weights to 0."""
    generator = torch.Generator().manual_seed(42)
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            n = module.weight.numel()
            gone = torch.randperm(n, generator=generator)[: round(sparsity * n)]
            with torch.no_grad():
                module.weight.view(-1)[gone] = 0.0


def use_sparseprop(model, x, train):
    """Puts SparseProp's convolutions where they are faster than PyTorch's, each with the faster of its two kernels.

    SparseProp's own `swap_modules_with_sparse` decides by one cold run of each; here the best of three decides.
    """
    shapes = {}
    hooks = [
        module.register_forward_pre_hook(lambda module, inputs: shapes.__setitem__(module, inputs[0].shape))
        for module in model.modules()
        if isinstance(module, torch.nn.Conv2d)
    ]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, torch.nn.Conv2d):
                setattr(parent, name, fastest(child, torch.randn(shapes[child]), train))


def fastest(conv, x, train):
    with torch.no_grad():
        expected = conv(x)
    best, best_time = conv, seconds(conv, x, train)
    for over_width in (False, True):
        sparse = SparseConv2d.from_dense(conv, vectorizing_over_on=over_width)
        with torch.no_grad():
            if not torch.allclose(sparse(x), expected, rtol=1e-3, atol=1e-3):
                continue
        taken = seconds(sparse, x, train)
        if taken < best_time:
            best, best_time = sparse, taken
    return best


def seconds(conv, x, train):
    x = x.clone().requires_grad_(train)
    best = float("inf")
    for _ in range(3):
        conv.zero_grad(set_to_none=True)
        x.grad = None
        start = time.perf_counter()
        with torch.set_grad_enabled(train):
            y = conv(x)
        taken = time.perf_counter() - start
        if train:
            gradient = torch.ones_like(y)
            start = time.perf_counter()
            y.backward(gradient)
            taken += time.perf_counter() - start
        best = min(best, taken)
    conv.zero_grad(set_to_none=True)
    return best


def build(engine, figure, sparsity):
    """A function without arguments that runs one step of the figure."""
    train = figure.startswith("train")
    if figure == "train_conv4":
        model, x = conv4(), torch.randn(60, 3, 32, 32)
    else:
        model, x = network(), torch.randn(1 if figure == "eval_b1" else 64, 3, SIDE, SIDE)
    if sparsity > 0:
        prune(model, sparsity)
    if engine == "sparseprop":
        use_sparseprop(model, x, train)
    if engine == "torch_nhwc":
        model = model.to(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)
    if not train:
        model.eval()

        def evaluate():
            with torch.inference_mode():
                model(x)

        return evaluate
    if figure == "train_frozen":
        freeze_body(model)
    model.train()
    targets = torch.arange(x.shape[0]) % 2
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # `fused` is the fastest of PyTorch's forms of AdamW on a CPU.
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, betas=(0.9, 0.99), eps=1e-5, weight_decay=0.01, fused=True)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(model(x), targets)
        loss.backward()
        optimizer.step()
        if not torch.isfinite(loss):
            raise ArithmeticError(f"the loss is {loss.item()}")

    return step


def turn(job, warmup, samples):
    for _ in range(warmup):
        job()
    milliseconds = []
    for _ in range(samples):
        start = time.perf_counter()
        job()
        milliseconds.append(1e3 * (time.perf_counter() - start))
    return milliseconds


def peak():
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None


def version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def answer(request, jobs):
    op = request["op"]
    if op == "hello":
        names = ["torch", "torchvision"] + (["sparseprop"] if SparseConv2d is not None else [])
        return {"versions": {name: version(name) for name in names}}
    if op == "build":
        jobs[request["id"]] = build(request["engine"], request["figure"], request["sparsity"])
        return {}
    if op == "turn":
        return {"ms": turn(jobs[request["id"]], request["warmup"], request["samples"])}
    if op == "drop":
        del jobs[request["id"]]
        return {}
    if op == "peak":
        return {"bytes": peak()}
    raise ValueError(f"no such request: {op}")


def main():
    jobs = {}
    for line in sys.stdin:
        try:
            reply = answer(json.loads(line), jobs)
        except Exception as error:  # noqa: BLE001  the caller decides
            reply = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(reply) + "\n")
        answers.flush()


main()
