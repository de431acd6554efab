#!/usr/bin/env python3
"""Writes the golden values of this folder.

    python make_schedules.py --fasterai DIR --fasterai-2021 DIR [--out DIR]

DIR is a checkout of https://github.com/FasterAI-Labs/fasterai (the folder that holds `fasterai/`), and one of
https://github.com/nathanhubens/fasterai at the commit before 91ba92f. Both are imported, nothing of them is copied. Needs
fastai and numpy.
"""
import argparse, importlib.util, json, sys
from pathlib import Path

ap = argparse.ArgumentParser()
ap.add_argument("--fasterai", required=True)
ap.add_argument("--fasterai-2021", required=True)
ap.add_argument("--out", default=str(Path(__file__).resolve().parent))
args = ap.parse_args()
sys.path.insert(0, args.fasterai)
import fasterai.core.schedule as S  # noqa: E402

pcts = [i / 100 for i in range(101)]
out = {"pct": pcts, "schedules": {}}
for n in S.available_schedules():
    s = getattr(S, n)
    s.reset()
    out["schedules"][n] = {"start_pct": s.start_pct, "end_pct": s.end_pct, "start_val": s.start_val, "end_val": s.end_val,
                           "progress": [float(s.progress(p)) for p in pcts]}
    s.reset()
spec = importlib.util.spec_from_file_location("schedule2021", Path(args.fasterai_2021) / "fasterai/sparse/schedule.py")
old = importlib.util.module_from_spec(spec)
spec.loader.exec_module(old)
out["schedules_2021"] = {f"{n}_{a}_{b}": {"start": a, "end": b, "value": [float(getattr(old, n)(a, b, p)) for p in pcts]}
                             for n in ("one_shot", "iterative", "sched_agp") for a, b in ((0, 50), (10, 80))}
(Path(args.out) / "schedules.json").write_text(json.dumps(out, separators=(",", ":")))
