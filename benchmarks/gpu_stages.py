"""What each stage of `gpu.py` measures.

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

# Published peaks of dense matrix products in bf16, in T floating-point operations a second. The
# first name that fits counts.
PEAKS = {"H100 PCIe": 756, "H100 NVL": 835, "H200 NVL": 835, "H100": 989, "H200": 989, "A100": 312}
# Images a second that the paper's model should reach in bf16 on an H100.
BARS = {"training": 800, "embedding": 2500}
# Of kernels, by their names (on a CPU: PyTorch's operators). The first that fits counts.
KINDS = {
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
    """What a stage found."""

    frame: pd.DataFrame
    text: str  # what the report shows of it
    pictures: tuple[str, ...] = ()  # the names of those that it drew


def peak(name: str, precision: str) -> float:
    """The card's published peak in multiply-adds a second; NaN for other cards, and for float32."""
    if precision != "float32":
        for card, operations in PEAKS.items():
            if card in name:
                return 1e12 * operations / 2
    return float("nan")


def throughput(
    where: Where, *, profile: str, batches, precisions, repetitions: int, compiled: bool
) -> Found:
    """Images a second and memory of training and embedding, by batch and precision."""
    device = torch.device(where.device)
    scale = PROFILES[profile]
    derived_gb = [value / 1e9 for value in derived(scale.scale(PAPER))]
    rows = []
    rates = {}
    for precision in precisions:
        rates[precision] = product_rate(device, precision)
        for batch in batches:
            if compiled:
                torch.compiler.reset()
            try:
                found = measure(
                    scale, device, precision, batch, repetitions, compiled, rates[precision]
                )
            except torch.OutOfMemoryError:
                row = {"work": "out of memory", "precision": precision, "batch": batch}
                found = [row | {"compile": compiled}]
            torch.cuda.empty_cache()
            for row in found:
                if row["work"] == "training":
                    row |= derived_memory(derived_gb, batch, precision)
                if row["work"] != "out of memory":
                    share = row["images_per_second"] / row["floor_images_per_second"]
                    row["of_product_rate"] = share
                    row["of_peak"] = share * rates[precision] / peak(where.name, precision)
            rows += found
    frame = pd.DataFrame(rows)
    hidden = ["profile", "torch", "device", "floor_images_per_second"]
    parts = [markdown(frame.drop(columns=hidden, errors="ignore"))]
    products = ", ".join(f"{rate / 1e12:.3g} in {precision}" for precision, rate in rates.items())
    card = 2 * peak(where.name, "bf16") / 1e12
    published = f"{card:.0f} T operations/s" if card > 0 else "unknown"
    parts.append(
        "`of_product_rate` is of a large matrix product's rate here, in T multiply-adds/s "
        f"{products}; `of_peak` is of the card's published peak in bf16, {published}."
    )
    if profile == "paper":
        parts += [against_bar(frame, work) for work in BARS]
    return Found(frame, "\n\n".join(parts))


def derived_memory(derived_gb: list[float], batch: int, precision: str) -> dict[str, float]:
    """The least and the most memory of a training step, from what `memory.derived` gives, in GB."""
    fixed, two, each = derived_gb
    kept = two + (batch - 2) * each
    least = kept if precision == "float32" else kept / 2
    return {"derived_least_gb": fixed + least, "derived_most_gb": fixed + kept}


def against_bar(frame: pd.DataFrame, work: str) -> str:
    """Says whether the fastest batch in bf16 reaches the bar."""
    rows = frame[(frame["work"] == work) & (frame["precision"] == "bf16")]
    best = rows["images_per_second"].max()
    verdict = "reached" if best >= BARS[work] else "not reached"
    bar = f"the bar on an H100 or H200 is {BARS[work]}: {verdict}"
    return f"{work}: at most {best:.0f} images/s in bf16; {bar}."


def kind(kernel: str) -> str:
    """The kind of a kernel, by its name."""
    for name, pattern in KINDS.items():
        if re.search(pattern, kernel, re.IGNORECASE):
            return name


def kernels(where: Where, *, profile: str, batch: int, precision: str) -> Found:
    """What holds training back: the time of one step by kinds of kernels."""
    device = torch.device(where.device)
    scale = PROFILES[profile]
    on_gpu = device.type == "cuda"
    rate = product_rate(device, precision)
    _, passes, step = next(works(scale, device, precision, batch))
    wall = 1e3 * spread_of(timed(step, device, 5))[0]
    activities = torch.profiler.ProfilerActivity
    with torch.profiler.profile(
        activities=[activities.CUDA if on_gpu else activities.CPU]
    ) as profiler:
        timed(step, device, 1, warmup=0)
    milliseconds = Counter()
    calls = Counter()
    longest = {}
    for event in profiler.key_averages():
        if on_gpu:
            if event.device_type != torch.autograd.DeviceType.CUDA or event.is_user_annotation:
                continue
            spent = event.self_device_time_total / 1e3
        else:
            spent = event.self_cpu_time_total / 1e3
        name = kind(event.key)
        milliseconds[name] += spent
        calls[name] += event.count
        longest[name] = max(longest.get(name, (0.0, "")), (spent, event.key[:60]))
    busy = sum(milliseconds.values())
    if on_gpu:
        milliseconds["no kernel runs"] = max(0.0, wall - busy)
    rows = []
    for name, spent in milliseconds.most_common():
        longest_ms, kernel = longest.get(name, (np.nan, ""))
        rows.append(
            {
                "kind": name,
                "milliseconds": spent,
                "share": spent / sum(milliseconds.values()),
                "calls": calls[name],
                "longest_ms": longest_ms,
                "longest": kernel,
            }
        )
    frame = pd.DataFrame(rows)
    floor = 1e3 * passes * batch * macs(scale.scale(PAPER)) / rate
    most = ", ".join(f"{row['kind']} {row['share']:.0%}" for row in rows[:3])
    text = (
        f"A step of {batch} images in {precision} takes {wall:.1f} ms; its kernels take "
        f"{busy:.1f} ms. Its products would take {floor:.1f} ms at the rate of a large one, "
        f"{rate / 1e12:.3g} T multiply-adds/s; what is above that holds it back. Most of the time "
        f"goes to: {most}."
    )
    return Found(frame, f"{markdown(frame)}\n\n{text}")


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
            rows.append(
                {
                    "queries": size[0],
                    "gallery": size[1],
                    "width": width,
                    "rerank": rerank,
                    "seconds": middle,
                    "spread": spread,
                    "mAP": 100 * found.mAP,
                    "rank-1": 100 * found.rank(1),
                }
            )
    frame = pd.DataFrame(rows)
    return Found(frame, markdown(frame))


def render(where: Where, *, size: str) -> Found:
    """The synthetic set at full size, rendered by the processor's cores."""
    folder = where.data_root / "synthetic" / f"{size}-0"
    shots = build.plan(build.SIZES[size], 0)
    missing = 0
    for shot in shots:
        if not ((folder / shot.path).exists() and (folder / shot.mask).exists()):
            missing += 1
    start = time.perf_counter()
    build.build(where.data_root, size, 0)
    seconds = time.perf_counter() - start
    row = {
        "size": size,
        "images": len(shots),
        "rendered": missing,
        "seconds": seconds,
        "images_per_second": missing / seconds,
        "cores": cores(),
    }
    frame = pd.DataFrame([row])
    return Found(frame, f"{markdown(frame)}\n\nWhat lay there before was not rendered again.")


def trained(
    where: Where, profile: str, size: str, start: str, precision: str, epochs: int
) -> tuple[Dataset, dict[str, RunFolder]]:
    """The synthetic set of a size, and on it FusionReID and its two branches, trained or loaded."""
    dataset = open_data(DataConfig(size=size), where.data_root)
    scale = PROFILES[profile]
    changes = FROM_RANDOM if start == "random" else {}
    training = replace(
        scale.train,
        epochs=epochs,
        warmup_epochs=max(1, epochs // 10),
        evaluate_every=epochs,
        precision=precision,
        **changes,
    )
    scale = replace(scale, start=start, train=training)
    configs = {variant.name: variant.config for variant in variants("table2")}
    folders = {}
    for name in ("FusionReID*", "ResNet50", "ViT-B/16*"):
        folders[name] = train(
            make_run(scale, configs[name], data=DataConfig(size=size)),
            dataset=dataset,
            data_root=where.data_root,
            runs_root=where.runs_root,
            device=where.device,
            progress=False,
        )
    return dataset, folders


def training(where: Where, **chosen) -> Found:
    """The paper's model and its two branches alone, trained on the full-size synthetic people."""
    dataset, folders = trained(where, **chosen)
    rows = []
    for name, folder in folders.items():
        epochs = folder.metrics.query("kind == 'epoch'")
        speed = epochs["images"].sum() / epochs["seconds"].sum()  # feeding included
        for feature, scores in folder.result["features"].items():
            rows.append(
                {
                    "model": name,
                    "feature": LABELS[feature],
                    "mAP": 100 * scores["mAP"],
                    "rank-1": 100 * scores["rank-1"],
                    "images_per_second": speed,
                    "run": folder.path.name,
                }
            )
    frame = pd.DataFrame(rows)
    about = ", ".join(f"{key} {value}" for key, value in chosen.items())
    text = f"Synthetic people {dataset.version}, seed 0, {about}."
    return Found(frame, f"{markdown(frame)}\n\n{text}")


def agreement(where: Where, **chosen) -> Found:
    """The trained model's vectors and accuracy in three precisions, beside its own in float32."""
    dataset, folders = trained(where, **chosen)
    model = folders["FusionReID*"].model(where.device)
    exact = None
    rows = []
    for precision in ("float32", "bf16", "fp16"):
        start = time.perf_counter()
        retrieval = retrieve(
            model, dataset, cache_directory=paths.cache(where.data_root), precision=precision
        )
        seconds = time.perf_counter() - start
        vectors = np.vstack(retrieval.select())
        if exact is None:
            exact = vectors
        distances = np.linalg.norm(vectors - exact, axis=1)
        scores = retrieval.rank(device=where.device)
        rows.append(
            {
                "precision": precision,
                "largest_distance": distances.max(),
                "mean_distance": distances.mean(),
                "mAP": 100 * scores.mAP,
                "rank-1": 100 * scores.rank(1),
                "embedding_seconds": seconds,
            }
        )
    frame = pd.DataFrame(rows)
    text = (
        f"{len(vectors)} retrieval vectors, each of length 1. On a card PyTorch's float32 "
        "convolutions use TF32 unless it is told otherwise."
    )
    return Found(frame, f"{markdown(frame)}\n\n{text}")


def explained(where: Where, *, shown: int, scored: int, **chosen) -> Found:
    """Grad-CAM and attention of the trained model, drawn and scored by masks, beside the demo's."""
    dataset, folders = trained(where, **chosen)
    models = [folder.model(where.device) for folder in folders.values()]
    model = models[0]
    queries, others = explain.pairs(dataset, scored)
    images, cameras = explain.model_inputs(model, queries[:shown])
    other_images, other_cameras = explain.model_inputs(model, others[:shown])
    people_masks = masks(queries[:shown], model.config.image_size)

    maps = {}
    found = explain.gradcam_maps(
        models,
        images,
        lambda net: explain.similarity_targets(net, other_images, other_cameras),
        cameras,
    )
    for (branch, stage), each in found.items():
        title = stage.replace(" ", "\n", 1)
        maps[f"{LABELS[branch]}\n{title}"] = each
    with torch.no_grad(), explain.record_attention(model) as weights:
        model.embed(images, cameras)
    units = {}
    for (layer, unit, branch), heads in weights.items():
        units[f"{unit.upper()} {layer}\n{LABELS[branch]}"] = heads.cpu()
    means = {name: heads.mean(dim=1) for name, heads in units.items()}
    first = {name: heads[0] for name, heads in units.items()}

    energy = {}
    for name, each in {**maps, **means}.items():
        energy[name] = map_scores.score(each, people_masks)["energy"]
    energy_of_heads = {}
    for name, heads in first.items():
        energy_of_heads[name] = map_scores.score(heads[None], people_masks[:1])["energy"][0]
    figures = {
        "gradcam": plots.heat_maps(images, maps, scores=energy, gutters=(1, 1 + len(maps) // 2)),
        "heads": plots.attention_heads(images[0], first, energy_of_heads),
        "means": plots.heat_maps(images, means, scores=energy, gutters=(1,)),
    }
    for name, figure in figures.items():
        plots.save(figure, where.stem(name), where.folder)

    scores = map_scores.gradcam_scores(models, queries, others)
    gradcam = intervals.summarise(scores, ["target", "branch", "stage"])
    gradcam = gradcam[gradcam["target"] == "similarity"]
    scores = map_scores.attention_scores(model, queries)
    attention = intervals.summarise(scores, ["branch", "layer", "unit", "head"])
    attention = attention[attention["head"] == "mean"]
    frames = [
        beside(gradcam, "10_numbers.csv", ["branch", "stage"]),
        beside(attention, "11_numbers.csv", ["branch", "layer", "unit"]),
    ]
    parts = [markdown(frame) for frame in frames]
    about = f"Energy on the person over {len(queries)} test people (1 is chance)"
    parts.append(f"{about}, with its 95 % interval.")
    committed = Path(os.path.relpath(paths.FIGURES, where.folder)).as_posix()
    for name in ("10_gradcam", "11_heads", "11_means"):
        parts.append(f"The demo's:\n\n![]({committed}/{name}.png)")
    return Found(pd.concat(frames), "\n\n".join(parts), tuple(figures))


def beside(found: pd.DataFrame, file: str, keys: list[str]) -> pd.DataFrame:
    """Energies of maps, and those of the committed demo."""
    demo = pd.read_csv(paths.FIGURES / file)
    if "target" in demo:
        demo = demo[demo["target"] == "similarity"]
    else:
        demo = demo[demo["head"] == "mean"]
    both = found.merge(demo, "left", keys, suffixes=("", " (demo)"))
    ours = ["energy", "low", "high"]
    return both[[*keys, *ours, *(f"{name} (demo)" for name in ours)]]


def table(where: Where, *, name: str, profile: str, seeds, data_seeds, processes: int) -> Found:
    """A table of the paper: the demo's networks, several seeds on several draws of the people."""
    processes = min(processes, cores())
    for data_seed in data_seeds:
        data = replace(PROFILES[profile].data, seed=data_seed)
        chosen = setting(profile, data, seeds, where.runs_root, where.data_root)
        run_all(name, chosen, devices=[where.device], processes=processes, progress=False)
        recorded.record(chosen)
    found = tables.comparison(compare.results(name, chosen), name)
    numbers = found.numbers
    columns = [": ".join(filter(None, column)) for column in numbers]
    return Found(numbers.set_axis(columns, axis=1).reset_index(), found.markdown())
