"""The model on one page: what each part makes of a scan, as a drawing and as a table.

    python -m eval.pictures.architecture

writes ``architecture.svg`` and ``architecture_parts.md`` from the released configuration. Shapes
are those of `EXAMPLE`, a scan of thick slices, rendered on cubes. Reaches are of the networks; the
closed form looks farther, with weights that die out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from eval.rows import spacing_text
from medil.grid import Grid
from medil.model.autoencoder import MedIL
from medil.model.weights import load_release
from medil.system.files import atomic_output

OUT = Path("_build/tables")
RELEASE = "tiny"
EXAMPLE = Grid.from_spacing((192, 224, 64), (1.0, 1.0, 3.0))
RENDERED_MM = 1.0
STYLE = """
.architecture { max-width: 27rem; width: 100%; height: auto; display: block; margin: auto; }
.architecture text { fill: var(--pst-color-text-base, #222); font: 11px sans-serif; }
.architecture .title { font-size: 13px; font-weight: 600; }
.architecture .part { fill: var(--pst-color-surface, #f3f4f5); }
.architecture .part, .architecture .cells { stroke: var(--pst-color-text-muted, #555); }
.architecture .latent { stroke: var(--pst-color-primary, #0a7d91); stroke-width: 2.5; }
.architecture .cells, .architecture .way { fill: none; }
.architecture .way { stroke: var(--pst-color-text-muted, #555); stroke-width: 1.5; }
.architecture .closed { stroke: var(--pst-color-primary, #0a7d91); stroke-dasharray: 5 3; }
.architecture .tip { fill: var(--pst-color-text-muted, #555); }
.architecture .closed-tip { fill: var(--pst-color-primary, #0a7d91); }
"""
# Of the drawing, in its own units: 360 wide, so that one is a pixel on a phone.
WIDTH, LEFT, RIGHT, TALL, GAP = 360, 78, 276, 76, 40
WINDOW_MM, PX_PER_MM = 16.0, 4.0  # of the cells drawn beside each part


@dataclass(frozen=True)
class Part:
    """A stretch of the way from voxels to voxels.

    Attributes:
        name: For people.
        code: Dotted name of what computes it, for a link.
        grid: Its numbers lie on the cells of this grid.
        channels: Numbers a cell.
        made_of: Layers, in words.
        way_in: What leads to it, in words.
        weights: Learned numbers.
        sees_mm: Side of the cube that one of its numbers depends on: of the scan up to the
            latent, of latent cells after it; 0 where nothing has been looked at.
    """

    name: str
    code: str
    grid: Grid
    channels: int
    made_of: str
    way_in: str = ""
    weights: int = 0
    sees_mm: float = 0.0


def parts(model: MedIL, scan: Grid = EXAMPLE, rendered_mm: float = RENDERED_MM) -> list[Part]:
    """From the voxels of a scan to those of a rendering, in the order of computation."""
    latent = model.latent_grid(scan)
    native = Part("Scan", "medil.volume.Volume", scan, 1, "native voxels")
    target = scan.with_spacing(rendered_mm)
    return [native, *_encoder(model, latent), *_decoder(model, latent, target)]


def _encoder(model: MedIL, latent: Grid) -> list[Part]:
    c, encoder, fine = model.config, model.encoder, model.fine_grid(latent)
    fine_mm, cell_mm = fine.spacing_mm[0], latent.spacing_mm[0]
    of_blocks = 4 * c.depth_encoder  # cells an axis: two convolutions of reach 1, both ways
    stem_mm = 2 * encoder.stem.basis.radius * fine_mm
    on_fine_mm = stem_mm + of_blocks * fine_mm
    on_cells_mm = on_fine_mm + cell_mm - fine_mm + of_blocks * cell_mm
    code = "medil.model.autoencoder.Encoder"
    return [
        Part("Encoder, fine level", code, fine, c.width_encoder,
             f"{_blocks(c.depth_encoder)}", f"LTE: {_operator(c.encoder_operator)}",
             _count(encoder.stem, encoder.fine), on_fine_mm),
        Part("Encoder, latent level", code, latent, c.width_latent, _blocks(c.depth_encoder),
             f"{_folded(c.fine_per_latent)} cells into one",
             _count(encoder.down, encoder.latent), on_cells_mm),
        Part("Latent z", "medil.latent.Latent", latent, c.latent_channels,
             "mean; its log-variance beside it", "linear", _count(encoder.out), on_cells_mm),
    ]  # fmt: skip


def _decoder(model: MedIL, latent: Grid, target: Grid) -> list[Part]:
    c, decoder, fine = model.config, model.decoder, model.fine_grid(latent)
    fine_mm, cell_mm = fine.spacing_mm[0], latent.spacing_mm[0]
    on_cells_mm = (3 + 4 * c.depth_latent) * cell_mm
    on_fine_mm = on_cells_mm + 4 * c.depth_fine * fine_mm
    code = "medil.model.autoencoder.Decoder"
    return [
        Part("Decoder, latent level", code, latent, c.width_latent,
             f"convolution, {_blocks(c.depth_latent)}", "z, or a sample of it",
             _count(decoder.into, decoder.latent), on_cells_mm),
        Part("Decoder, fine level", code, fine, c.width_fine, _blocks(c.depth_fine),
             f"one cell into {_folded(c.fine_per_latent)}",
             _count(decoder.up, decoder.fine), on_fine_mm),
        Part("Rendering", "medil.model.field.Field", target, 1, "any grid, any point",
             f"LTE: {_operator(c.operator)}", _count(decoder.render),
             on_fine_mm + 2 * decoder.render.reach * fine_mm),
    ]  # fmt: skip


def _operator(name: str) -> str:
    words = {"integrated": "averaged local waves"}
    return words.get(name, name)


def _blocks(depth: int) -> str:
    return f"{depth} residual block{'s' if depth > 1 else ''}"


def _folded(factor: int) -> str:
    return " × ".join([str(factor)] * 3)


def _count(*layers: nn.Module) -> int:
    return sum(p.numel() for layer in layers for p in layer.parameters())


# The table


def table(model: MedIL) -> str:
    """Parts, one a line, as a table in Markdown with links to the code."""
    lines = [
        ":::{table} The parts of the released model.",
        ":name: tab-architecture",
        "",
        "| Part | Made of | Grid (mm) | Channels | Sees (mm) | Weights | Code |",
        "|:---|:---|---:|---:|---:|---:|:---|",
    ]
    for part in parts(model):
        sees = f"{part.sees_mm:g}" if part.sees_mm else ""
        weights = f"{part.weights:,}" if part.weights else ""
        lines.append(
            f"| {part.name} | {part.made_of} | {_spacing(part.grid)} | {part.channels} | {sees} "
            f"| {weights} | {{py:class}}`~{part.code}` |"
        )
    return "\n".join([*lines, ":::"])


def _spacing(grid: Grid) -> str:
    return spacing_text(grid).replace(" x ", " × ")


def _shape(grid: Grid) -> str:
    return " × ".join(map(str, grid.shape))


def kept(model: MedIL, scan: Grid = EXAMPLE) -> str:
    """How many numbers the latent of a scan keeps, in words."""
    numbers = model.latent_grid(scan).n_voxels * model.config.latent_channels
    return f"{numbers:,} numbers, {numbers / scan.n_voxels:.3g} a voxel"


# The drawing


def drawing(model: MedIL) -> str:
    """The way of a scan as inline SVG, top to bottom, in the colours of the page around it."""
    chain = parts(model)
    height = len(chain) * TALL + (len(chain) - 1) * GAP + 4
    latent = next(i for i, part in enumerate(chain) if part.name.startswith("Latent"))
    body = [
        _part(part, _top(i), kept(model) if i == latent else "") for i, part in enumerate(chain)
    ]
    body += [_way(part.way_in, _top(i)) for i, part in enumerate(chain) if part.way_in]
    if model.config.closed_form:
        body += _closed_form(_top(0), _top(latent), ("least", "squares"))
        body += _closed_form(_top(latent), _top(len(chain) - 1), ("cubic", "B-splines"))
    told = "; ".join(f"{p.name}: {_numbers(p)}" for p in chain)
    return (
        f'<svg class="architecture" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'xmlns="http://www.w3.org/2000/svg"><desc>From top to bottom. {told}.</desc>'
        f"<style>{STYLE}</style>{''.join(body)}</svg>\n"
    )


def _top(index: int) -> int:
    return 2 + index * (TALL + GAP)


def _numbers(part: Part) -> str:
    channels = "1 number" if part.channels == 1 else f"{part.channels} numbers"
    return f"{channels} a cell of {_spacing(part.grid)} mm, {_shape(part.grid)}"


def _part(part: Part, top: int, more: str) -> str:
    """A box of words, and beside it the cells of its grid, to one scale."""
    unit = "voxel" if part.channels == 1 else "cell"
    channels = f"{part.channels} number{'s' if part.channels > 1 else ''} a {unit}"
    sees = f", sees {part.sees_mm:g} mm" if part.sees_mm else ""
    lines = [
        f"{_shape(part.grid)}, {_spacing(part.grid)} mm",
        more or part.made_of,
        f"{channels}{sees}",
    ]
    kind = "part latent" if more else "part"
    words = [_text(LEFT + 9, top + 18, part.name, "title")]
    words += [_text(LEFT + 9, top + 36 + 15 * n, line) for n, line in enumerate(lines)]
    box = (
        f'<rect class="{kind}" x="{LEFT}" y="{top}" width="{RIGHT - LEFT}" height="{TALL}" rx="6"/>'
    )
    return box + "".join(words) + _cells(part.grid, top + (TALL - WINDOW_MM * PX_PER_MM) / 2)


def _cells(grid: Grid, top: float) -> str:
    """A window of the grid, R to the right and S up, 4 units a mm."""
    side, left = WINDOW_MM * PX_PER_MM, 4
    across, up = grid.spacing_mm[0] * PX_PER_MM, grid.spacing_mm[2] * PX_PER_MM
    path = [f"M{left + x:g} {top:g}v{side:g}" for x in _steps(across, side)]
    path += [f"M{left} {top + y:g}h{side:g}" for y in _steps(up, side)]
    return f'<path class="cells" stroke-width="0.7" d="{"".join(path)}"/>'


def _steps(step: float, side: float) -> Iterable[float]:
    return [*(n * step for n in range(int(side / step + 1e-9) + 1)), side]


def _way(words: str, top: int) -> str:
    """The arrow that leads to a box, and what it stands for."""
    x = LEFT + 16
    return f'<path class="way" d="M{x} {top - GAP}V{top - 7}"/>{_tip(x, top, "tip")}' + _text(
        x + 12, top - GAP / 2 + 4, words
    )


def _tip(x: float, y: float, kind: str) -> str:
    return f'<path class="{kind}" d="M{x} {y}l-4.5 -8h9z"/>'


def _closed_form(start: int, end: int, words: Sequence[str]) -> list[str]:
    """The dashed way past the network: from the side of one box to that of another."""
    x, leave, arrive = RIGHT + 20, start + TALL * 0.6, end + TALL * 0.4
    path = f"M{RIGHT} {leave:g}H{x}V{arrive:g}H{RIGHT + 8}"
    tip = f"M{RIGHT} {arrive:g}l8 -4.5v9z"
    middle = (leave + arrive) / 2
    return [
        f'<path class="way closed" d="{path}"/><path class="closed-tip" d="{tip}"/>',
        *(_text(x + 6, middle + 14 * n - 4, word) for n, word in enumerate(words)),
    ]


def _text(x: float, y: float, words: str, kind: str = "") -> str:
    kind = f' class="{kind}"' if kind else ""
    return f'<text{kind} x="{x:g}" y="{y:g}">{words}</text>'


def write(out: Path, release: str = RELEASE) -> list[Path]:
    """Write the drawing and the table of a release; the files."""
    model = load_release(release)
    out.mkdir(parents=True, exist_ok=True)
    texts = {"architecture.svg": drawing(model), "architecture_parts.md": table(model) + "\n"}
    for name, text in texts.items():
        with atomic_output(out / name, force=True) as part:
            part.write_text(text, "utf-8")
    return [out / name for name in texts]


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.pictures.architecture", description=__doc__
    )
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the files")
    for path in write(parser.parse_args(arguments).out):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
