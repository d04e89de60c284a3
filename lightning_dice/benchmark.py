"""python -m lightning_dice.benchmark: what an iteration, a patch and a voxel cost on this machine."""

from lightning_dice.cli import command

if __name__ == "__main__":
    command("benchmark", paths=("output",))

import copy
import json
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytorch_lightning as pl
import torch
from lightning_fabric import Fabric
from omegaconf import DictConfig

from lightning_dice import workloads
from lightning_dice.build import build_datamodule, build_fabric, build_module, settle
from lightning_dice.data.datamodule import CTDataModule
from lightning_dice.files import atomic_write
from lightning_dice.scaling import scaling, time_training
from lightning_dice.settings import BenchmarkSettings
from lightning_dice.validation import checked

PAPER_ITERATIONS, PAPER_CELLS = 10_000, 6
BATCHES = 100  # in each round
MEMORY = {"volume": "inference_memory_gb", "volume, MONAI": "inference_memory_gb_of_monai"}  # works that it is told of


def benchmark(config: DictConfig) -> dict[str, Any]:
    """Time training, patches and inference of this configuration, and print the figures.

    Each round does `steps` iterations or batches of every work, or one volume, in turn, so that what else the machine
    does hits them all; the median over the rounds counts, with the least and the most beside it. With `devices` it is
    the training alone, on each of these numbers of them.

    Returns:
        Plain types, which `output` gets too: seconds of each work, and what follows from them.

    Raises:
        InputError: a data set or a setting that cannot be used.
    """
    checked(config, BenchmarkSettings)
    config = settle(config)
    if config.devices:
        table = scaling(config, config.devices)
        print(table.to_string(index=False, float_format="{:.4g}".format))
        return _written({"scaling": table.to_dict("records")}, config.output)
    pl.seed_everything(config.seed, workers=True, verbose=False)
    data = build_datamodule(config)
    data.setup()
    data.check_patches()
    module = build_module(config, data)
    fabric = build_fabric(config.trainer.accelerator, config.trainer.devices, config.trainer.precision, "trainer.")
    # Whole turns of the transformed volumes, of which each serves so many batches.
    batches = BATCHES if data.transform is None else config.steps * data.samples_per_volume
    product, flop_of_product = workloads.matrix_product(fabric)
    works = {
        "iteration, data in memory": (workloads.training_in_memory(module, data, fabric), config.steps),
        "network alone": (workloads.network_alone(module, data, fabric), config.steps),
        "matrix product": (product, config.steps),
        "batch from the store": (workloads.store_patches(data), batches),
        "volume": (workloads.our_inference(module, data, fabric, config.overlap), 1),
        "volume, network alone": (workloads.network_on_windows(module, data, fabric, config.overlap), 1),
    }
    if config.compare:
        works |= {
            "iteration, MONAI": (workloads.monai_training(module, data, fabric), config.steps),
            "batch, MONAI": (workloads.monai_patches(data), BATCHES),
            "batch, tio.Queue on files": (workloads.stock_queue_patches(data), 2),
            "volume, MONAI": (workloads.monai_inference(module, data, fabric, config.overlap), 1),
        }

    seconds: dict[str, list[float]] = {name: [] for name in ("iteration from the store", *works)}
    waiting, memory = [], {}
    for _ in range(config.rounds):
        summary = time_training(config, copy.deepcopy(module), data)
        seconds["iteration from the store"].append(summary["seconds_per_iteration"])
        waiting.append(summary["share_waiting_for_data"])
        memory = {key: summary[key] for key in ("peak_memory_gb", "peak_device_memory_gb")}
        for name, (work, times) in works.items():
            seconds[name].append(_seconds(work, times, fabric))
    table = pd.DataFrame(seconds).agg(["median", "min", "max"]).T
    result = {
        "device": str(fabric.device),
        "precision": fabric.strategy.precision.precision,
        "seconds": table.to_dict("index"),
        "share_waiting_for_data": float(pd.Series(waiting).median()),
        **memory,
        **{key: _memory_gb(works[name][0], fabric) for name, key in MEMORY.items() if name in works},
        **_figures(table["median"], workloads.flop_per_iteration(module.network, data), flop_of_product, data),
    }
    print(table.to_string(float_format="{:.4g}".format, header=["median s", "least", "most"]), "\n")
    print("\n".join(f"{key}: {value:.4g}" for key, value in result.items() if isinstance(value, float)))
    return _written(result, config.output)


def _written(result: dict[str, Any], output: str | None) -> dict[str, Any]:
    if output:
        with atomic_write(Path(output).expanduser()) as path:
            path.write_text(json.dumps(result, indent=2))
    return result


def _figures(seconds: pd.Series, flop: float, flop_of_product: float, data: CTDataModule) -> dict[str, float]:
    """What follows from the median seconds."""
    ours = seconds["iteration from the store"]
    figures = {
        "iteration_over_bare_loop": ours / seconds["iteration, data in memory"],
        "tflop_per_second": flop / ours / 1e12,
        "tflop_per_second_of_matrix_product": flop_of_product / seconds["matrix product"] / 1e12,
        "patches_per_second": data.batch_size / seconds["batch from the store"],
        "iteration_over_network": ours / seconds["network alone"],
        "volume_over_network": seconds["volume"] / seconds["volume, network alone"],
        "voxels_per_second_of_inference": workloads.volume_voxels(data) / seconds["volume"],
        "hours_of_the_papers_run": PAPER_ITERATIONS * ours / 3600,
        "hours_of_the_papers_grid": PAPER_CELLS * PAPER_ITERATIONS * ours / 3600,
    }
    if "iteration, MONAI" in seconds:
        figures |= {
            "iteration_over_monai": ours / seconds["iteration, MONAI"],
            "patches_over_monai": seconds["batch, MONAI"] / seconds["batch from the store"],
            "patches_over_tio_queue": seconds["batch, tio.Queue on files"] / seconds["batch from the store"],
            "volume_over_monai": seconds["volume"] / seconds["volume, MONAI"],
        }
    return {name: float(value) for name, value in figures.items()}


def _seconds(work: workloads.Work, times: int, fabric: Fabric) -> float:
    """Mean seconds per call after one warm-up call."""
    work()
    _finish(fabric)
    started = time.perf_counter()
    for _ in range(times):
        work()
    _finish(fabric)
    return (time.perf_counter() - started) / times


def _memory_gb(work: workloads.Work, fabric: Fabric) -> float | None:
    """How far a work's peak is above what is held before it: in a GPU's memory; else in the host's, told on Linux."""
    if fabric.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return (torch.cuda.max_memory_allocated() - before) / 1e9
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak falls back to what is resident now
    except OSError:
        return None
    resident = _resident_gb("VmRSS")
    work()
    return _resident_gb("VmHWM") - resident


def _resident_gb(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e9 for line in lines if line.startswith(name))


def _finish(fabric: Fabric) -> None:
    if fabric.device.type == "cuda":
        torch.cuda.synchronize()
