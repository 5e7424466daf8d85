"""Figures one after another: an animated PNG or an animated SVG, which any browser plays."""

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure
from PIL import Image

_NAMES = re.compile(r'(\bid="|href="#|url\(#)')
_SIZE = re.compile(r'<svg [^>]*?width="([\d.]+)pt" height="([\d.]+)pt"')


class Film(NamedTuple):
    """Frames of one size, each shown for `seconds`, the last one for `rest`; then again."""

    frames: Sequence[Figure]
    seconds: float = 0.15
    rest: float = 2.0

    def savefig(self, path: Path, metadata: Mapping[str, None] | None = None) -> None:
        """Write an animation: SVG where `path` says so, PNG otherwise; as `Figure.savefig`."""
        # Cut to its content, every frame would have another size.
        with mpl.rc_context({"savefig.bbox": "standard"}):
            if path.suffix == ".svg":
                path.write_text(self._svg(metadata), encoding="utf-8")
            else:
                self._save_png(path)

    def _save_png(self, path: Path) -> None:
        images = []
        for frame in self.frames:
            frame.savefig(buffer := io.BytesIO(), format="png", dpi=110)
            images.append(Image.open(buffer).convert("RGB"))
        durations = [1000 * self.seconds] * (len(images) - 1) + [1000 * self.rest]
        images[0].save(path, save_all=True, append_images=images[1:], duration=durations, loop=0)

    def _svg(self, metadata: Mapping[str, None] | None) -> str:
        total = self.seconds * (len(self.frames) - 1) + self.rest
        drawn, width, height = [], "", ""
        for index, frame in enumerate(self.frames):
            frame.savefig(buffer := io.StringIO(), format="svg", metadata=dict(metadata or {}))
            svg = buffer.getvalue()
            svg = svg[svg.index("<svg") :]
            size = _SIZE.search(svg)
            assert size is not None, "matplotlib writes a size in points"
            width, height = size.groups()
            # Frames are parts of one document, whose names must be unique.
            named = _NAMES.sub(rf"\g<1>f{index}-", svg)
            # Inside another drawing a point is four thirds of its unit.
            named = named.replace(f'width="{width}pt" height="{height}pt"', "", 1)
            drawn.append(self._timed(named, index, total))
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'width="{width}pt" height="{height}pt" viewBox="0 0 {width} {height}">\n'
            + "\n".join(drawn)
            + "\n</svg>\n"
        )

    def _timed(self, svg: str, index: int, total: float) -> str:
        """Only the last frame is there without animation, as on paper."""
        last = index == len(self.frames) - 1
        begin = index * self.seconds / total
        end = 1.0 if last else (index + 1) * self.seconds / total
        times, values = [0.0], ["none" if index else "inline"]
        for time, value in ((begin, "inline"), (end, "none")):
            if 0 < time < 1:
                times.append(time)
                values.append(value)
        return (
            f'<g display="{"inline" if last else "none"}"><animate attributeName="display" '
            f'values="{";".join(values)}" keyTimes="{";".join(f"{t:.6f}" for t in times)}" '
            f'calcMode="discrete" dur="{total:g}s" repeatCount="indefinite"/>\n{svg}</g>'
        )
