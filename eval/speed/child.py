"""Jobs in processes of their own, whose peak memory is then nobody else's.

    python eval/speed/child.py NAME '{"an": "argument"}'

runs one of `JOBS` and prints a line of JSON: what it returned and the process's peak resident
memory. It is run as a file, since importing the package `eval.speed` would count. The peak is the
kernel's `VmHWM`, because `ru_maxrss` of a child starts at the size of the process that started
it; where there is no ``/proc`` it is `ru_maxrss` all the same.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from medil.system.children import tied

ROOT = Path(__file__).parents[2]
MB = 1e6
MARK = "speed-child "  # before the line of JSON: libraries print too


def peak_rss_bytes(status: Path = Path("/proc/self/status")) -> int:
    """Peak resident memory of this process since it began."""
    try:
        lines = status.read_text().splitlines()
        return next(int(s.split()[1]) * 1024 for s in lines if s.startswith("VmHWM:"))
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def run_job(
    name: str, threads: int, environment: Mapping[str, str] | None = None, /, **arguments: Any
) -> dict[str, float]:
    """Run a job of `JOBS` in a child process: its values, `peak_rss_mb` and `process_s`.

    `threads` limits torch and BLAS there, `environment` adds variables; `arguments` must fit
    into JSON.

    Raises:
        RuntimeError: The child failed; with the end of its error output.
    """
    settings = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    settings["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-P", __file__, name, json.dumps(arguments)]
    begun = time.perf_counter()
    ran = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **settings, **(environment or {})}, text=True,
        capture_output=True, **tied(),
    )  # fmt: skip
    process_s = time.perf_counter() - begun
    lines = [line for line in ran.stdout.splitlines() if line.startswith(MARK)]
    if ran.returncode or not lines:
        raise RuntimeError(f"the job {name} failed: {ran.stderr[-1500:]}")
    return {**json.loads(lines[-1].removeprefix(MARK)), "process_s": process_s}


# Jobs


def idle() -> dict[str, float]:
    """Import Python and torch and do nothing: the baseline of every other peak."""
    import torch

    import medil.model.autoencoder  # noqa: F401

    torch.zeros(1)
    return {}


def allocate(megabytes: float) -> dict[str, float]:
    """Fill a known amount of memory, to test the measurement."""
    import numpy as np

    return {"sum": float(np.ones(int(megabytes * MB / 8)).sum())}


def release(scan: str, name: str, spacing_mm: float) -> dict[str, float]:
    """Encode a scan with a release, and render it on its own voxels and on others."""
    from medil.model.weights import load_release
    from medil.volume import load

    volume, model = load(scan), load_release(name)
    begun = time.perf_counter()
    latent = model.encode(volume)
    encoded = time.perf_counter()
    model.decode(latent)
    values = {"encode_s": encoded - begun, "decode_s": time.perf_counter() - encoded}
    values["peak_rss_mb"] = peak_rss_bytes() / MB
    begun = time.perf_counter()
    model.decode(latent, volume.grid.with_spacing(spacing_mm))
    return {**values, "resized_s": time.perf_counter() - begun}


def monai(
    scan: str, channels: list[int], latent_channels: int, spacing_mm: float
) -> dict[str, float]:
    """Encode and decode a scan with MONAI's `AutoencoderKL`, and resample what it decodes.

    So many channels a level, two residual blocks each. The weights are untrained: they cost as
    much as trained ones. No attention, as in MONAI's own examples of 3-D autoencoders.
    """
    import torch
    from torch.nn import functional

    from medil.errors import needs
    from medil.volume import load, robust_intensity

    with needs("rivals", "the rival is MONAI's"):
        from monai.networks.nets import AutoencoderKL
    torch.manual_seed(0)
    levels = len(channels)
    net = AutoencoderKL(
        3, 1, 1, (2,) * levels, tuple(channels), (False,) * levels, latent_channels,
        norm_num_groups=32, with_encoder_nonlocal_attn=False, with_decoder_nonlocal_attn=False,
    ).eval()  # fmt: skip
    volume = load(scan)
    with torch.inference_mode():
        begun = time.perf_counter()
        image = robust_intensity(volume.data).forward(volume.data)[None, None]
        spare = [(-n) % 2 ** (levels - 1) for n in volume.grid.shape]
        image = functional.pad(image, [p for n in reversed(spare) for p in (0, n)])
        mean, _ = net.encode(image)
        del image, _
        encoded = time.perf_counter()
        decoded = net.decode(mean)
        values = {"encode_s": encoded - begun, "decode_s": time.perf_counter() - encoded}
        values["peak_rss_mb"] = peak_rss_bytes() / MB
        shape = volume.grid.with_spacing(spacing_mm).shape
        functional.interpolate(decoded, size=shape, mode="trilinear")
        return {**values, "resized_s": time.perf_counter() - encoded}


def command(arguments: list[str]) -> dict[str, float]:
    """A verb of the command line, such as ``["decode", "scan.safetensors", "-o", "fine.nii"]``."""
    from medil.cli import run

    begun = time.perf_counter()
    if code := run(arguments):
        raise SystemExit(code)
    return {"verb_s": time.perf_counter() - begun}


JOBS: dict[str, Callable[..., dict[str, float]]] = {
    "idle": idle, "allocate": allocate, "release": release, "monai": monai, "command": command,
}  # fmt: skip


def main(name: str, arguments: str) -> None:
    """Run one job; print its values as JSON, with the peak memory unless a job read it before."""
    values = JOBS[name](**json.loads(arguments))
    print(MARK + json.dumps({"peak_rss_mb": peak_rss_bytes() / MB, **values}))


if __name__ == "__main__":
    main(*sys.argv[1:])
