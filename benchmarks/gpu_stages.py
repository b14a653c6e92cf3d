"""What each stage of `gpu.py` measures: speed, kernels, ranking, rendering, training, precisions, pictures, tables.

    python benchmarks/gpu.py --only kernels        # calls one of them

A stage is a function of where it computes and of its settings, and returns what it found.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from measure import markdown, people, slug, spread_of
from memory import derived
from throughput import macs, measure, product_rate, timed, works

from fusionreid import evaluate_ranking, paths, plots
from fusionreid.config import LABELS, PAPER, PROFILES, DataConfig
from fusionreid.data.datasets import Dataset, open_data
from fusionreid.data.synthetic import build
from fusionreid.data.truth import masks
from fusionreid.evaluation import explain, map_scores
from fusionreid.evaluation.evaluate import retrieve
from fusionreid.jobs import run_all
from fusionreid.paper import compare, intervals, recorded, tables
from fusionreid.paper.experiments import setting, variants
from fusionreid.processes import cores
from fusionreid.training.runs import RunFolder, make_run
from fusionreid.training.train import train

# Published peaks of dense matrix products in bf16, in T floating-point operations a second; the first that fits counts.
PEAKS = {"H100 PCIe": 756, "H100 NVL": 835, "H200 NVL": 835, "H100": 989, "H200": 989, "A100": 312}
BARS = {
    "training": 800,
    "embedding": 2500,
}  # images a second that the paper's model should reach in bf16 on an H100
KINDS = {  # of kernels, by their names (on a CPU: PyTorch's operators); the first that fits counts
    "optimiser": "multi_tensor|foreach|optimizer|sgd|adam",
    "attention": "flash|fmha|attention|sdpa",
    "convolutions": "conv(?!ert)|wgrad|dgrad|fprop|implicit",
    "normalisation": "norm|bn_|welford|gammabeta",
    "matrix products": "gemm|gemv|nvjet|cutlass|matmul|::(add|b|addb)?mm$",
    "copies and casts": "copy|memcpy|memset|catarray|::cat$|transpose|nchw|nhwc",
    "elementwise and reductions": "",
}
FROM_RANDOM = {
    "optimizer": "adamw",
    "learning_rate_start": 3e-5,
    "learning_rate": 3e-4,
    "weight_decay": 0.05,
}


class Where(NamedTuple):
    """Where a stage computes, reads and writes."""

    device: str
    name: str  # of the device
    folder: Path
    data_root: Path
    runs_root: Path

    def stem(self, what: str) -> str:
        return f"gpu_{what}_{slug(self.name)}"


class Found(NamedTuple):
    """What a stage found: its numbers, what the report shows of them, and the pictures that it drew, by name."""

    frame: pd.DataFrame
    text: str
    pictures: tuple[str, ...] = ()


def peak(name: str, precision: str) -> float:
    """The card's published peak in multiply-adds a second; NaN for other cards, and for float32."""
    found = (
        1e12 * value / 2 for card, value in PEAKS.items() if card in name and precision != "float32"
    )
    return next(found, float("nan"))


def throughput(
    where: Where, *, profile: str, batches, precisions, repetitions: int, compiled: bool
) -> Found:
    """Images a second and memory of training and embedding, by batch and precision."""
    device, scale, rows, rates = torch.device(where.device), PROFILES[profile], [], {}
    fixed, two, each = (value / 1e9 for value in derived(scale.scale(PAPER)))
    for precision in precisions:
        rate = rates[precision] = product_rate(device, precision)
        for batch in batches:
            if compiled:
                torch.compiler.reset()
            try:
                found = measure(scale, device, precision, batch, repetitions, compiled, rate)
            except torch.OutOfMemoryError:
                found = [
                    {
                        "work": "out of memory",
                        "precision": precision,
                        "batch": batch,
                        "compile": compiled,
                    }
                ]
            torch.cuda.empty_cache()
            kept = two + (batch - 2) * each
            for row in found:
                if row["work"] == "training":
                    row["derived_least_gb"] = fixed + kept * (1 if precision == "float32" else 0.5)
                    row["derived_most_gb"] = fixed + kept
                if row["work"] != "out of memory":
                    row["of_product_rate"] = (
                        row["images_per_second"] / row["floor_images_per_second"]
                    )
                    row["of_peak"] = row["of_product_rate"] * rate / peak(where.name, precision)
            rows += found
    frame, card = pd.DataFrame(rows), 2 * peak(where.name, "bf16") / 1e12
    products = ", ".join(f"{rate / 1e12:.3g} in {precision}" for precision, rate in rates.items())
    notes = [
        f"`of_product_rate` is of a large matrix product's rate here, in T multiply-adds/s {products}; `of_peak` is of "
        f"the card's published peak in bf16, {f'{card:.0f} T operations/s' if card > 0 else 'unknown'}."
    ]
    for work, bar in BARS.items() if profile == "paper" else ():
        best = frame[(frame["work"] == work) & (frame["precision"] == "bf16")][
            "images_per_second"
        ].max()
        verdict = "reached" if best >= bar else "not reached"
        notes.append(
            f"{work}: at most {best:.0f} images/s in bf16; the bar on an H100 or H200 is {bar}: {verdict}."
        )
    hidden = ["profile", "torch", "device", "floor_images_per_second"]
    return Found(
        frame, "\n\n".join([markdown(frame.drop(columns=hidden, errors="ignore")), *notes])
    )


def kind(kernel: str) -> str:
    """The kind of a kernel, by its name."""
    return next(
        name for name, pattern in KINDS.items() if re.search(pattern, kernel, re.IGNORECASE)
    )


def kernels(where: Where, *, profile: str, batch: int, precision: str) -> Found:
    """What holds training back: the time of one step by kinds of kernels."""
    device, scale = torch.device(where.device), PROFILES[profile]
    on_gpu, kinds = device.type == "cuda", torch.profiler.ProfilerActivity
    rate = product_rate(device, precision)
    _, passes, step = next(works(scale, device, precision, batch))
    wall = 1e3 * spread_of(timed(step, device, 5))[0]
    with torch.profiler.profile(activities=[kinds.CUDA if on_gpu else kinds.CPU]) as profiler:
        timed(step, device, 1, warmup=0)
    milliseconds, calls, longest = Counter(), Counter(), {}
    for event in profiler.key_averages():
        if on_gpu and (
            event.device_type != torch.autograd.DeviceType.CUDA or event.is_user_annotation
        ):
            continue
        spent, name = (
            (event.self_device_time_total if on_gpu else event.self_cpu_time_total) / 1e3,
            kind(event.key),
        )
        milliseconds[name] += spent
        calls[name] += event.count
        longest[name] = max(longest.get(name, (0.0, "")), (spent, event.key[:60]))
    busy = sum(milliseconds.values())
    if on_gpu:
        milliseconds["no kernel runs"] = max(0.0, wall - busy)
    rows = [
        {
            "kind": name,
            "milliseconds": spent,
            "share": spent / sum(milliseconds.values()),
            "calls": calls[name],
        }
        | dict(zip(("longest_ms", "longest"), longest.get(name, (np.nan, "")), strict=True))
        for name, spent in milliseconds.most_common()
    ]
    floor = 1e3 * passes * batch * macs(scale.scale(PAPER)) / rate
    most = ", ".join(f"{row['kind']} {row['share']:.0%}" for row in rows[:3])
    text = (
        f"A step of {batch} images in {precision} takes {wall:.1f} ms; its kernels take {busy:.1f} ms. Its products "
        f"would take {floor:.1f} ms at the rate of a large one, {rate / 1e12:.3g} T multiply-adds/s; what is above "
        f"that holds it back. Most of the time goes to: {most}."
    )
    return Found(pd.DataFrame(rows), f"{markdown(pd.DataFrame(rows))}\n\n{text}")


def ranking(where: Where, *, size, widths, repetitions: int) -> Found:
    """Exact ranking and k-reciprocal re-ranking of simulated people, by width of the features."""
    rows = []
    for width in widths:
        features, labels = people(*size, width=width, spread=1.6)
        for rerank in (False, True):
            seconds = []
            for _ in range(1 if rerank else repetitions):
                start = time.perf_counter()
                found = evaluate_ranking(*features, *labels, rerank=rerank, device=where.device)
                seconds.append(time.perf_counter() - start)
            middle, spread = spread_of(seconds)
            rows.append({"queries": size[0], "gallery": size[1], "width": width, "rerank": rerank})
            rows[-1] |= {
                "seconds": middle,
                "spread": spread,
                "mAP": 100 * found.mAP,
                "rank-1": 100 * found.rank(1),
            }
    frame = pd.DataFrame(rows)
    return Found(frame, markdown(frame))


def render(where: Where, *, size: str) -> Found:
    """The synthetic set at full size, rendered by the processor's cores."""
    folder, shots = where.data_root / "synthetic" / f"{size}-0", build.plan(build.SIZES[size], 0)
    missing = sum(
        not ((folder / shot.path).exists() and (folder / shot.mask).exists()) for shot in shots
    )
    start = time.perf_counter()
    build.build(where.data_root, size, 0)
    row = {
        "size": size,
        "images": len(shots),
        "rendered": missing,
        "seconds": time.perf_counter() - start,
    }
    frame = pd.DataFrame([row | {"images_per_second": missing / row["seconds"], "cores": cores()}])
    return Found(frame, f"{markdown(frame)}\n\nWhat lay there before was not rendered again.")


def trained(
    where: Where, profile: str, size: str, start: str, precision: str, epochs: int
) -> tuple[Dataset, dict[str, RunFolder]]:
    """The synthetic set of a size, and on it FusionReID, its CNN alone and its Transformer alone, trained or loaded."""
    roots = {"data_root": where.data_root, "runs_root": where.runs_root}
    dataset, scale = open_data(DataConfig(size=size), where.data_root), PROFILES[profile]
    own = {
        "epochs": epochs,
        "warmup_epochs": max(1, epochs // 10),
        "evaluate_every": epochs,
        "precision": precision,
    }
    own |= FROM_RANDOM if start == "random" else {}
    scale = replace(scale, start=start, train=replace(scale.train, **own))
    configs, folders = {each.name: each.config for each in variants("table2")}, {}
    for name in ("FusionReID*", "ResNet50", "ViT-B/16*"):
        run = make_run(scale, configs[name], data=DataConfig(size=size))
        folders[name] = train(run, dataset=dataset, device=where.device, progress=False, **roots)
    return dataset, folders


def training(where: Where, **chosen) -> Found:
    """The paper's model and its two branches alone, trained on the full-size synthetic people."""
    dataset, folders = trained(where, **chosen)
    rows = []
    for name, folder in folders.items():
        epochs = folder.metrics[lambda rows: rows["kind"] == "epoch"]
        speed = epochs["images"].sum() / epochs["seconds"].sum()  # feeding included
        for feature, scores in folder.result["features"].items():
            rows.append({"model": name, "feature": LABELS[feature], "mAP": 100 * scores["mAP"]})
            rows[-1] |= {
                "rank-1": 100 * scores["rank-1"],
                "images_per_second": speed,
                "run": folder.path.name,
            }
    frame, about = pd.DataFrame(rows), ", ".join(f"{key} {value}" for key, value in chosen.items())
    return Found(
        frame, f"{markdown(frame)}\n\nSynthetic people {dataset.version}, seed 0, {about}."
    )


def agreement(where: Where, **chosen) -> Found:
    """The trained model's vectors and accuracy in three precisions, beside its own in float32."""
    dataset, folders = trained(where, **chosen)
    model, exact, rows = folders["FusionReID*"].model(where.device), None, []
    for precision in ("float32", "bf16", "fp16"):
        start = time.perf_counter()
        found = retrieve(
            model, dataset, cache_directory=paths.cache(where.data_root), precision=precision
        )
        seconds = time.perf_counter() - start
        vectors = np.vstack(found.select())
        exact = vectors if exact is None else exact
        distances, scores = (
            np.linalg.norm(vectors - exact, axis=1),
            found.rank(device=where.device),
        )
        rows.append(
            {
                "precision": precision,
                "largest_distance": distances.max(),
                "mean_distance": distances.mean(),
            }
        )
        rows[-1] |= {
            "mAP": 100 * scores.mAP,
            "rank-1": 100 * scores.rank(1),
            "embedding_seconds": seconds,
        }
    frame, note = (
        pd.DataFrame(rows),
        "On a card PyTorch's float32 convolutions use TF32 unless it is told otherwise.",
    )
    return Found(
        frame, f"{markdown(frame)}\n\n{len(vectors)} retrieval vectors, each of length 1. {note}"
    )


def explained(where: Where, *, shown: int, scored: int, **chosen) -> Found:
    """Grad-CAM and attention of the trained model, drawn and scored by masks, beside the committed demo's."""
    dataset, folders = trained(where, **chosen)
    trio = [folder.model(where.device) for folder in folders.values()]
    model, (queries, seconds) = trio[0], explain.pairs(dataset, scored)
    (images, cameras), second = (
        explain.model_inputs(model, records[:shown]) for records in (queries, seconds)
    )
    on = masks(queries[:shown], model.config.image_size)
    maps = explain.gradcam_maps(
        trio, images, lambda net: explain.similarity_targets(net, *second), cameras
    )
    maps = {
        f"{LABELS[branch]}\n{stage.replace(' ', chr(10), 1)}": each
        for (branch, stage), each in maps.items()
    }
    with torch.no_grad(), explain.record_attention(model) as weights:
        model.embed(images, cameras)
    units = {
        f"{unit.upper()} {layer}\n{LABELS[branch]}": each.cpu()
        for (layer, unit, branch), each in weights.items()
    }
    means, first = (
        {name: each.mean(dim=1) for name, each in units.items()},
        {name: x[0] for name, x in units.items()},
    )
    energy = {
        name: map_scores.score(each, on)["energy"] for name, each in {**maps, **means}.items()
    }
    heads = {
        name: map_scores.score(each[None], on[:1])["energy"][0] for name, each in first.items()
    }
    figures = {
        "gradcam": plots.heat_maps(images, maps, scores=energy, gutters=(1, 1 + len(maps) // 2)),
        "heads": plots.attention_heads(images[0], first, heads),
        "means": plots.heat_maps(images, means, scores=energy, gutters=(1,)),
    }
    for name, figure in figures.items():
        plots.save(figure, where.stem(name), where.folder)
    found = intervals.summarise(
        map_scores.gradcam_scores(trio, queries, seconds), ["target", "branch", "stage"]
    )
    rows = [beside(found[found["target"] == "similarity"], "10_numbers.csv", ["branch", "stage"])]
    found = intervals.summarise(
        map_scores.attention_scores(model, queries), ["branch", "layer", "unit", "head"]
    )
    rows.append(
        beside(found[found["head"] == "mean"], "11_numbers.csv", ["branch", "layer", "unit"])
    )
    text = [markdown(each) for each in rows]
    text.append(
        f"Energy on the person over {len(queries)} test people (1 is chance), with its 95 % interval."
    )
    committed = Path(os.path.relpath(paths.FIGURES, where.folder)).as_posix()
    text += [
        f"The demo's:\n\n![]({committed}/{name}.png)"
        for name in ("10_gradcam", "11_heads", "11_means")
    ]
    return Found(pd.concat(rows), "\n\n".join(text), tuple(figures))


def beside(found: pd.DataFrame, file: str, keys: list[str]) -> pd.DataFrame:
    """Energies of maps, and those of the committed demo."""
    demo = pd.read_csv(paths.FIGURES / file)
    demo = (
        demo[demo["target"] == "similarity"] if "target" in demo else demo[demo["head"] == "mean"]
    )
    both = found.merge(demo, "left", keys, suffixes=("", " (demo)"))
    return both[
        [*keys, *(f"{name}{of}" for of in ("", " (demo)") for name in ("energy", "low", "high"))]
    ]


def table(where: Where, *, name: str, profile: str, seeds, data_seeds, processes: int) -> Found:
    """A table of the paper: the demo's networks with several seeds on several draws of the people."""
    for data_seed in data_seeds:
        data = replace(PROFILES[profile].data, seed=data_seed)
        chosen = setting(profile, data, seeds, where.runs_root, where.data_root)
        spread = {"devices": [where.device], "processes": min(processes, cores())}
        run_all(name, chosen, progress=False, **spread)
        recorded.record(chosen)
    found = tables.comparison(compare.results(name, chosen), name)
    flat = found.numbers.set_axis(
        [": ".join(filter(None, column)) for column in found.numbers], axis=1
    )
    return Found(flat.reset_index(), found.markdown())
