"""The page of failures: twelve pictures to name, and what each looks like, comes from and needs.

    python -m eval.pages.failures

writes ``failures.html``, the cards, and ``failures.md``, the rule that names them, from a synthetic
head: pictures, readings and sentences are measured by `eval.faults.clinic` on the way.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import colormaps

from eval.faults.answers import FAILURES, READINGS, Failure, told
from eval.faults.clinic import MAKE, RULE, Signs, clinic_block, diagnose, nearest, signs
from eval.faults.distortions import Block
from eval.tables import markdown
from medil.errors import InputError
from medil.system.files import atomic_output

OUT = Path("_build/tables")
ERROR = 0.25  # of the peak, where the colours of a difference end
COLOURS = "PuOr_r"
ORDER_SEED = 3  # of the cards


# Words


def readings(measured: Signs) -> str:
    """All readings of a picture, as a table in HTML."""
    lines = "".join(
        f"<tr><th scope='row'>{words}</th><td>{told(name, getattr(measured, name))}</td></tr>"
        for name, (words, _) in READINGS.items()
    )
    return f"<table><caption>Readings against the scan</caption><tbody>{lines}</tbody></table>"


def answer(failure: Failure, measured: Signs) -> str:
    """What a failure is, in HTML, with its readings put in."""
    values = {
        name: told(name, value) for name, value in asdict(measured).items() if name in READINGS
    }
    parts = {
        "Signature": failure.signature.format(**values), "Cause": failure.cause,
        "Test": failure.test, "Cure": failure.cure,
    }  # fmt: skip
    listed = "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in parts.items())
    return (
        f"<p><strong>{failure.title[0].upper()}{failure.title[1:]}.</strong></p><dl>{listed}</dl>"
    )


# Pictures


def plane(block: Block, data: np.ndarray) -> np.ndarray:
    """[A, R] the axial plane in the middle of the block, anterior up, right on the right."""
    return data[:, ::-1, data.shape[2] // 2].T


def as_png(pixels: np.ndarray) -> str:
    """Pixels [H, W] or [H, W, 3] of 8 bits as an address that holds them."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def grey(block: Block, picture: np.ndarray) -> str:
    """A picture in the window that all share, from 0 to the peak."""
    return as_png((255 * plane(block, picture / block.peak).clip(0, 1)).round().astype(np.uint8))


def coloured(block: Block, picture: np.ndarray) -> str:
    """The difference from the scan: orange too bright, purple too dark."""
    share = plane(block, (picture - block.truth) / block.peak) / ERROR
    colours = colormaps[COLOURS](share.clip(-1, 1) / 2 + 0.5)[..., :3]
    return as_png((255 * colours).round().astype(np.uint8))


def image(source: str, alt: str, block: Block) -> str:
    """An image element at twice the pixels."""
    height, width = plane(block, block.truth).shape
    size = f'width="{2 * width}" height="{2 * height}"'
    return f'<img src="{source}" {size} alt="{escape(alt)}">'


# The page


HEAD = """<link rel="stylesheet" href="../interactive/clinic/clinic.css">
<div class="medil-clinic" data-options="{options}">
<figure class="medil-clinic-scan">{scan}
<figcaption><p>The scan: an axial cut of a synthetic head, right of the head on the right, front up.
All pictures show this cut in this window.</p></figcaption>
</figure>
"""
CARD = """<section class="medil-card" data-fault="{fault}" aria-label="Picture {number}">
{picture}
<div><p class="medil-card-name">Picture {number}</p></div>
<details><summary>Difference and readings of picture {number}</summary>
<div class="medil-card-pair">{difference}
{readings}</div>
</details>
<details class="medil-card-answer"><summary>Answer to picture {number}</summary>
{answer}
</details>
</section>
"""
FOOT = """</div>
<p>The readings alone name {right} of {all} pictures right, by the rule below.</p>
<script src="../interactive/clinic/clinic.js" defer></script>
"""
Measured = Mapping[str, Signs]  # by fault


def cards(block: Block, pictures: Mapping[str, np.ndarray], measured: Measured) -> str:
    """The scan and twelve cards, in an order that tells nothing."""
    names = np.random.default_rng(ORDER_SEED).permutation(list(pictures))
    made = [
        card(number, name, block, pictures[name], measured[name])
        for number, name in enumerate(names, 1)
    ]
    titles = {name: FAILURES[name].title for name in sorted(FAILURES)}
    scan = image(grey(block, block.truth), "An axial cut through both ventricles.", block)
    head = HEAD.format(options=escape(json.dumps(titles)), scan=scan)
    right = sum(diagnose(own) == name for name, own in measured.items())
    return head + "".join(made) + FOOT.format(right=right, all=len(measured))


def card(number: int, name: str, block: Block, picture: np.ndarray, measured: Signs) -> str:
    """One picture with its readings and its answer, both folded."""
    alt = f"Picture {number}, the same cut. Its readings, in the table below, tell what differs."
    difference = f"Picture {number} minus the scan. The readings in the table below describe it."
    return CARD.format(
        fault=name, number=number, picture=image(grey(block, picture), alt, block),
        difference=image(coloured(block, picture), difference, block),
        readings=readings(measured), answer=answer(FAILURES[name], measured),
    )  # fmt: skip


def rule_table(measured: Measured) -> str:
    """The rule in Markdown: what each step asks, whom it names, and by how much."""
    lines = [
        {
            "Step": number, "Reading": READINGS[step.sign][0],
            "Asks": f"{'above' if step.above else 'below'} {told(step.sign, step.limit)}",
            "Then it is": FAILURES[step.fault].title,
            "Here": told(step.sign, step.of(measured[step.fault])),
            "Next of the rest": told(step.sign, nearest(step, measured)),
        }
        for number, step in enumerate(RULE, 1)
    ]  # fmt: skip
    return markdown(pd.DataFrame(lines))


def write(out: Path) -> list[Path]:
    """Write both files; their paths."""
    out.mkdir(parents=True, exist_ok=True)
    block = clinic_block()
    pictures = {name: make(block) for name, make in MAKE.items()}
    measured = {name: signs(block, picture) for name, picture in pictures.items()}
    texts = {"html": cards(block, pictures, measured), "md": rule_table(measured)}
    paths = [out / f"failures.{suffix}" for suffix in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        with atomic_output(path, force=True) as part:
            part.write_text(f"{text}\n", "utf-8")
    return paths


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0, or 2 after one sentence about what is missing."""
    parser = argparse.ArgumentParser(prog="python -m eval.pages.failures", description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the files")
    try:
        print(*write(parser.parse_args(arguments).out))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
