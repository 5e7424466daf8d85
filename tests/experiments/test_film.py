"""Frames one after another, in both formats."""

from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from experiments.film import Film
from experiments.pictures import figure

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def film():
    frames = []
    for height in (1.0, 30.0, 500.0):  # tick labels of other widths: a tight cut would differ
        canvas, (axes,) = figure(3, 2)
        axes.bar([1, 2], [height, height / 2])
        frames.append(canvas)
    return Film(frames, seconds=0.5, rest=1.0)


def test_png_holds_every_frame_for_its_time(film, tmp_path):
    film.savefig(tmp_path / "film.png")
    with Image.open(tmp_path / "film.png") as image:
        frames, seconds, seen = getattr(image, "n_frames", 1), [], []
        for index in range(frames):
            image.seek(index)
            image.load()
            seconds.append(image.info["duration"] / 1000)
            seen.append(np.asarray(image.convert("L"), dtype=float))
    assert seconds == [0.5, 0.5, 1.0]
    assert all(np.abs(a - b).mean() > 0.1 for a, b in pairwise(seen))


def intervals(svg) -> list[tuple[float, float]]:
    """When each frame is shown, as fractions of the whole."""
    shown = []
    for animate in svg.iter(f"{SVG}animate"):
        times = [*map(float, animate.get("keyTimes").split(";")), 1.0]
        values = animate.get("values").split(";")
        on = [k for k, value in enumerate(values) if value == "inline"]
        assert len(on) == 1
        shown.append((times[on[0]], times[on[0] + 1]))
    return shown


def test_svg_shows_one_frame_at_a_time(film, tmp_path):
    film.savefig(tmp_path / "film.svg", metadata={"Date": None})
    svg = ElementTree.parse(tmp_path / "film.svg").getroot()
    np.testing.assert_allclose(intervals(svg), [(0, 0.25), (0.25, 0.5), (0.5, 1)], atol=1e-6)
    assert [group.get("display") for group in svg.findall(f"{SVG}g")] == ["none", "none", "inline"]


def test_names_in_the_svg_are_unique_and_all_references_lead_somewhere(film, tmp_path):
    film.savefig(tmp_path / "film.svg")
    names, wanted = [], set()
    for element in ElementTree.parse(tmp_path / "film.svg").iter():
        for key, value in element.attrib.items():
            if key == "id":
                names.append(value)
            elif key.endswith("href") and value.startswith("#"):
                wanted.add(value[1:])
            elif value.startswith("url(#"):
                wanted.add(value[5:-1])
    assert len(names) == len(set(names))
    assert wanted <= set(names)
    assert any(name.startswith("f2-") for name in wanted)


def test_the_same_frames_give_the_same_bytes(film, tmp_path):
    for suffix in ("svg", "png"):
        for name in ("a", "b"):
            film.savefig(tmp_path / f"{name}.{suffix}", metadata={"Date": None})
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()
