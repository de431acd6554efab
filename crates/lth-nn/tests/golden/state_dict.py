"""State dicts as torch.save writes them (zip format, and the one before 1.6), without torch: Python's own pickler is given
classes of torch's names and the same persistent identifiers. Writes state_dict.pth and state_dict_legacy.pth.

Element i of every storage is i / 2 - 3; the counter is 7."""
import collections, pickle, struct, sys, types, zipfile

torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
sys.modules.update({"torch": torch, "torch._utils": utils})


def fake(module, name):
    def function(*arguments): raise NotImplementedError
    function.__module__, function.__qualname__, function.__name__ = module.__name__, name, name
    setattr(module, name, function)
    return function


rebuild_tensor, rebuild_parameter = fake(utils, "_rebuild_tensor_v2"), fake(utils, "_rebuild_parameter")
KINDS = {"FloatStorage": "f", "DoubleStorage": "d", "HalfStorage": "e", "LongStorage": "q", "BFloat16Storage": "bf16", "BoolStorage": "?"}
for kind in KINDS: setattr(torch, kind, type(kind, (), {"__module__": "torch"}))


class Storage:
    def __init__(self, kind, n):
        self.kind, self.n, values = kind, n, [i / 2 - 3 for i in range(n)]
        if KINDS[kind] == "bf16": self.data = b"".join(struct.pack("<f", v)[2:] for v in values)
        elif KINDS[kind] == "q": self.data = struct.pack(f"<{n}q", *[7] * n)
        else: self.data = struct.pack(f"<{n}{KINDS[kind]}", *values)


class Tensor:
    def __init__(self, storage, offset, size, stride): self.parts = (storage, offset, size, stride, False, collections.OrderedDict())
    def __reduce_ex__(self, protocol): return rebuild_tensor, self.parts


class Parameter:
    def __init__(self, tensor): self.tensor = tensor
    def __reduce_ex__(self, protocol): return rebuild_parameter, (self.tensor, True, collections.OrderedDict())


class Pickler(pickle.Pickler):
    def __init__(self, file, storages, legacy): super().__init__(file, 2); self.storages, self.legacy = storages, legacy
    def persistent_id(self, obj):
        if not isinstance(obj, Storage): return None
        if obj not in self.storages: self.storages.append(obj)
        key = str(self.storages.index(obj))
        return ("storage", getattr(torch, obj.kind), key, "cpu", obj.n) + ((None,) if self.legacy else ())


shared = Storage("FloatStorage", 20)
state = collections.OrderedDict([
    ("fc1.weight", Tensor(shared, 0, (4, 3), (3, 1))),
    ("fc1.bias", Tensor(shared, 12, (4,), (1,))),
    ("transposed", Tensor(Storage("FloatStorage", 6), 0, (3, 2), (1, 3))),
    ("strided", Tensor(shared, 1, (2, 3), (8, 2))),
    ("half", Parameter(Tensor(Storage("HalfStorage", 4), 0, (2, 2), (2, 1)))),
    ("bfloat", Tensor(Storage("BFloat16Storage", 3), 0, (3,), (1,))),
    ("double", Tensor(Storage("DoubleStorage", 2), 0, (2,), (1,))),
    ("flags", Tensor(Storage("BoolStorage", 2), 0, (2,), (1,))),
    ("bn.num_batches_tracked", Tensor(Storage("LongStorage", 1), 0, (), ())),
])
state._metadata = collections.OrderedDict([("", {"version": 1}), ("fc1", {"version": 1})])


class File:
    def __init__(self): self.parts = []
    def write(self, data): self.parts.append(bytes(data)); return len(data)


def dump(obj, storages, legacy=False):
    file = File(); Pickler(file, storages, legacy).dump(obj); return b"".join(file.parts)


storages = []
with zipfile.ZipFile("state_dict.pth", "w", zipfile.ZIP_STORED) as archive:
    entry = lambda name, data: archive.writestr(zipfile.ZipInfo("state_dict/" + name, (1980, 1, 1, 0, 0, 0)), data)
    entry("data.pkl", dump(state, storages)); entry("byteorder", b"little")
    for i, storage in enumerate(storages): entry(f"data/{i}", storage.data)
    entry("version", b"3\n")

storages = []
with open("state_dict_legacy.pth", "wb") as file:
    file.write(pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2))
    file.write(pickle.dumps({"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}, 2))
    file.write(dump(state, storages, True) + pickle.dumps([str(i) for i in range(len(storages))], 2))
    for storage in storages: file.write(struct.pack("<q", storage.n) + storage.data)
