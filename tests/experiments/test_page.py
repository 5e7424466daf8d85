"""The interactive page in a real browser: what it shows are the arrays it was made of."""

import io
import json
import math
import re

import numpy as np
import pytest
from browser import Browser, browsing
from PIL import Image

from experiments.probing.page import PromptPage, measure, page
from experiments.probing.page_codes import ERROR, LEAST, shares
from experiments.probing.page_tags import ALL, Tags
from mech.capture import capture
from mech.errors import BadInput
from mech.load import load
from mech.tokens import encode

ODD = ["<s>", " a", '"', "'", "</script><script>alert(1)</script>", "&amp;", "\n", "שלום"]
ODD += [
    "\U0001f469\u200d\U0001f467",
    "\u202e",
    "",
    " ",
    "{{ x }}",
    "\x00",
    "é" * 60,
    "<!-- <script>",
]
LAYERS, HEADS, SEQ, TAIL = 3, 5, 11, 2


def made(
    layers: int = LAYERS, heads: int = HEADS, seq: int = SEQ, tokens: list[str] | None = None
) -> PromptPage:
    """A page of random attention, with tokens 0 and 4 its sinks where there are so many."""
    rng = np.random.default_rng(0)
    tokens = tokens or [f" w{i}" for i in range(seq)]
    seq = len(tokens)
    logits = rng.normal(size=(layers, heads, seq, seq)) * 2
    logits[..., [0, min(4, seq - 1)]] += 3
    logits[..., 1] -= 40  # shares below what the code can hold
    logits = np.where(np.tril(np.ones((seq, seq), bool)), logits, -np.inf)
    pattern = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    alpha = pattern.sum(-2) / np.arange(seq, 0, -1)
    sinks = alpha > 0.1
    sinks[..., max(1, seq - TAIL) :] = False
    depth = (layers + 1, seq)
    changed = rng.random((3, layers, heads)) if layers > 1 and seq > 5 else np.zeros((0, 1, 1))
    changed[:, :1] = 0
    layer, head, token = np.array([[0, ALL, 4], [0, 1, 4], [0, 2, 0]])[: len(changed)].T
    return PromptPage(
        model="tiny <b>",
        note="no BOS",
        tokens=tokens,
        epsilon=0.1,
        tail=TAIL,
        pattern=pattern,
        alpha=alpha,
        null=rng.random((layers, seq)) * 0.1,
        sinks=sinks,
        share=rng.normal(size=(layers, heads, seq)),
        head_colour=rng.random((layers, heads, seq, 3)),
        head_share=rng.random((layers, heads)),
        stream_colour=rng.random((*depth, 3)),
        stream_share=rng.random(layers + 1),
        norm=rng.random(depth) * 100 + 1,
        peak=rng.normal(size=depth) * 100,
        peak_dim=rng.integers(0, 64, depth),
        massive=rng.random(depth) > 0.8,
        tags=Tags(layer, head, token, changed, changed[::-1] / 3),
    )


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with browsing(tmp_path_factory.mktemp("profile")) as driven:
        yield driven


@pytest.fixture
def show(browser, tmp_path):
    """Opens a page; afterwards its console is empty and nothing was asked of any network."""
    file = tmp_path / "page.html"

    def opened(seen: PromptPage, address: str = "") -> Browser:
        file.write_text(page(seen), encoding="utf-8")
        browser.console.clear()
        browser.size(1280, 900)
        browser.move(1, 1)
        browser.blank()
        browser.open(f"{file.as_uri()}{address}")
        return browser

    yield opened
    browser.value("1")  # whatever the page still had to say has come by now
    assert browser.console == []
    asked = {url.split("#")[0] for url in browser.requests if not url.startswith("data:")}
    assert asked == {file.as_uri()}


def text(browser: Browser, name: str) -> str:
    return browser.value(f"document.getElementById('{name}').innerText")


def place(browser: Browser, canvas: str, *cell: int) -> tuple[float, float]:
    """Where a cell of a canvas is in the window, once it has been scrolled there."""
    x, y = browser.value(f"""(async () => {{
        const canvas = document.getElementById('{canvas}');
        canvas.scrollIntoView({{ block: 'center' }});
        await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
        const box = canvas.getBoundingClientRect(), cell = canvas.place({cell[0]}, {cell[1]});
        return [box.left + cell.x, box.top + cell.y];
    }})()""")
    return x, y


def hovered(browser: Browser, canvas: str, *cell: int) -> str:
    browser.move(1, 1)
    browser.move(*place(browser, canvas, *cell))
    browser.until("!document.getElementById('tip').hidden")
    return text(browser, "tip")


def selected(browser: Browser) -> tuple[int, int]:
    return int(text(browser, "layer-value")), int(text(browser, "head-value"))


def pixels(browser: Browser, canvas: str) -> str:
    return browser.value(f"document.getElementById('{canvas}').toDataURL()")


def colours(picture: bytes) -> int:
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    return len(image.getcolors(1 << 24) or [])


def agrees(shown: str, value: float) -> bool:
    """Three digits of the value, give or take the stated error of its code."""
    found = float(shown.replace(",", ""))
    digit = 10 ** (math.floor(math.log10(abs(found))) - 2) if found else LEAST
    return abs(found - value) <= 0.5000001 * digit + ERROR * abs(value)


def last_number(tip: str) -> str:
    return re.findall(r"-?[\d.,]+(?:e-?\d+)?", tip)[-1]


def test_shares_come_back_to_the_stated_error():
    p = np.concatenate([np.geomspace(LEAST * 1.0001, 1, 100_003), [0.0, LEAST * 0.999, 1 + 1e-7]])
    code = shares(p).astype(float)
    back = np.where(code == 0, 0, 2 ** ((code - 65535) / 4096))
    worst = np.abs(back[:-3] / p[:-3] - 1).max()
    assert 0.99 * ERROR < worst <= ERROR * (1 + 1e-6)
    assert back[-3:].tolist() == [0, 0, 1]


def test_the_map_has_the_patterns_values(show):
    seen = made()
    browser = show(seen, "#layer=2&head=3")
    for query, key in [(10, 0), (10, 10), (7, 4), (4, 2), (0, 0)]:
        tip = hovered(browser, "map", query, key)
        assert agrees(last_number(tip), seen.pattern[2, 3, query, key]), tip
    assert hovered(browser, "map", 10, 1).endswith("below 0.0000153")
    assert hovered(browser, "map", 3, 8).endswith("not visible")


@pytest.mark.parametrize("kind", ["first", "later", "count", "share"])
def test_the_overview_has_the_probes_values(show, kind):
    seen = made()
    browser = show(seen, f"#map={kind}")
    layer, head = 1, 4
    later = [k for k in range(1, SEQ) if seen.sinks[layer, head, k]]
    assert later
    tip = hovered(browser, "overview", layer, head)
    assert tip.startswith(f"layer {layer}, head {head}\n")
    if kind == "share":
        assert last_number(tip) == f"{round(100 * seen.share[layer, head, later].sum())}"
    else:
        alpha = seen.alpha[layer, head]
        wanted = {"first": alpha[0], "later": alpha[later].max(), "count": len(later)}
        assert agrees(last_number(tip), wanted[kind])


def test_sliders_move_with_the_arrow_keys(show):
    browser = show(made(), "#layer=0&head=0")
    before = pixels(browser, "map"), browser.screenshot()
    browser.value("document.getElementById('layer').focus()")
    browser.key("ArrowRight")
    assert selected(browser) == (1, 0)
    browser.value("document.getElementById('head').focus()")
    browser.key("ArrowRight")
    browser.key("ArrowRight")
    assert selected(browser) == (1, 2)
    assert text(browser, "map-title") == "Attention of layer 1, head 2"
    assert pixels(browser, "map") != before[0]
    assert browser.screenshot() != before[1]
    browser.until("location.hash.includes('layer=1&head=2')")


def test_a_click_on_a_heat_map_selects_the_head(show):
    browser = show(made(), "#layer=0&head=0&token=4")
    for canvas, cell in [("overview", (2, 1)), ("received", (1, 3)), ("caught", (0, 4))]:
        browser.click(*place(browser, canvas, *cell))
        assert selected(browser) == cell
    browser.value("document.getElementById('overview').focus()")
    browser.key("ArrowRight")
    browser.key("ArrowUp")
    assert selected(browser) == (1, 3)
    browser.key("ArrowLeft")
    browser.key("ArrowDown")
    assert selected(browser) == (0, 4)


def test_a_clicked_token_is_pinned_with_its_facts(show):
    seen = made()
    browser = show(seen, "#layer=1&head=2&token=none")
    assert text(browser, "token-title") == "Click a token"
    x, y = browser.value(
        "(() => { const b = document.getElementById('token-6').getBoundingClientRect();"
        "return [b.left + b.width / 2, b.top + b.height / 2]; })()"
    )
    browser.click(x, y)
    assert "w6" in text(browser, "token-title")
    facts = browser.value("[...document.querySelectorAll('#facts dd')].map((d) => d.innerText)")
    assert agrees(facts[0].split()[0], seen.alpha[1, 2, 6])
    assert facts[1].split()[0] == f"{round(100 * seen.share[1, 2, 6])}%"
    sinks = [k for k in range(7) if seen.sinks[1, 2, k]]
    best = max(sinks, key=lambda k: seen.pattern[1, 2, 6, k])
    assert f"({best})" in facts[2]
    assert agrees(facts[2].split()[-1], seen.pattern[1, 2, 6, best])
    assert agrees(facts[3].split()[0], seen.peak[2, 6])
    assert f"dimension {seen.peak_dim[2, 6]} " in facts[3]
    assert facts[3].endswith("massive") == seen.massive[2, 6]
    tip = hovered(browser, "received", 0, 3).split("\n")[1]
    assert agrees(tip.split("=")[1].split(",")[0], seen.alpha[0, 3, 6])
    at = [k for k in range(7) if seen.sinks[2, 4, k]]
    catcher = max(at, key=lambda k: seen.pattern[2, 4, 6, k])
    tip = hovered(browser, "caught", 2, 4)
    assert f"({catcher})" in tip
    assert agrees(last_number(tip), seen.pattern[2, 4, 6, catcher])


def test_readers_are_those_that_change_beyond_the_control(show):
    seen = made()
    browser = show(seen, "#token=4&tag=0.1")
    for name, index in (("0.1", 1), ("0.all", 0)):
        browser.value(
            f"(() => {{ const s = document.getElementById('tag'); s.value = '{name}';"
            "s.dispatchEvent(new Event('change')); })()"
        )
        beyond = np.maximum(seen.tags.changed[index] - seen.tags.control[index], 0)
        order = np.argsort(-beyond, axis=None)[:5]
        for line, flat in zip(text(browser, "readers-list").split("\n"), order, strict=True):
            layer, head = np.unravel_index(flat, beyond.shape)
            assert line.startswith(f"layer {layer}, head {head} ")
            assert f"{100 * seen.tags.changed[index, layer, head]:.1f}%" in line
            assert f"{100 * seen.tags.control[index, layer, head]:.1f}%" in line
    browser.value("document.querySelector('#readers-list button').click()")
    assert selected(browser) == np.unravel_index(order[0], beyond.shape)
    assert hovered(browser, "readers", 0, 1).endswith("not after the tag")
    browser.value("document.getElementById('token-7').click()")
    assert "wrote none of the 3 tags" in text(browser, "readers-note")


def test_the_text_takes_arrow_keys(show):
    browser = show(made(), "#token=2")
    browser.value("document.getElementById('text').focus()")
    browser.key("ArrowRight")
    assert "w3" in text(browser, "status")
    browser.key("Enter")
    assert "w3" in text(browser, "token-title")
    browser.key("Escape")
    assert text(browser, "token-title") == "Click a token"


def test_the_map_takes_arrow_keys(show):
    seen = made()
    browser = show(seen, "#layer=0&head=0&token=none")
    browser.value("document.getElementById('map').focus()")
    for _ in range(5):
        browser.key("ArrowDown")
    browser.key("ArrowRight")
    browser.key("ArrowRight")
    assert agrees(last_number(text(browser, "status")), seen.pattern[0, 0, 5, 2])
    browser.key("Enter")
    assert "w2" in text(browser, "token-title")


@pytest.mark.parametrize("colour", ["sink", "received", "writes", "stream"])
def test_the_text_is_coloured(show, colour):
    seen = made()
    browser = show(seen, f"#layer=1&head=3&colour={colour}")
    look = "getComputedStyle(document.getElementById('token-5')).backgroundColor"
    found = [int(part) for part in re.findall(r"\d+", browser.value(look))]
    stored = {"writes": seen.head_colour[1, 3, 5], "stream": seen.stream_colour[2, 5]}
    if colour in stored:
        np.testing.assert_allclose(found, 127.5 + 127.5 * stored[colour], atol=1.5)
    browser.value("document.getElementById('layer').focus()")
    browser.key("ArrowRight")
    assert browser.value(look) != f"rgb({found[0]}, {found[1]}, {found[2]})"


def test_a_link_shows_the_same_again(show):
    browser = show(made(), "#layer=2&head=1&token=7&colour=stream&map=count")
    first = browser.screenshot()
    browser.click(*place(browser, "overview", 0, 3))
    browser.until("location.hash.startsWith('#layer=0&head=3')")
    address = browser.value("location.hash")
    there = pixels(browser, "map"), text(browser, "facts")
    browser = show(made(), address)
    assert selected(browser) == (0, 3)
    assert (pixels(browser, "map"), text(browser, "facts")) == there
    # Nothing is loaded anew when only the part behind # changes.
    browser.value("location.hash = '#layer=2&head=1&token=7&colour=stream&map=count'")
    browser.until("document.getElementById('layer-value').innerText === '2'")
    browser.move(1, 1)
    assert browser.screenshot() == first


@pytest.mark.parametrize(
    "address", ["#layer=99&head=-1&token=1e9", "#layer=<b>&colour=toString&tag=__proto__.x", "#%"]
)
def test_any_address_shows_something(show, address):
    browser = show(made(), address)
    layer, head = selected(browser)
    assert 0 <= layer < LAYERS
    assert 0 <= head < HEADS


def test_no_token_can_break_the_page(show):
    browser = show(made(tokens=ODD), "#token=4")
    spans = browser.value(
        "[...document.querySelectorAll('#text .token')].map((s) => s.textContent)"
    )
    wanted = dict(enumerate(ODD)) | {6: "⏎", 9: "‹U+202E›", 10: "∅", 13: "‹U+0000›"}
    assert spans == [wanted[i] for i in range(len(ODD))]
    assert browser.value("document.querySelectorAll('script').length") == 2
    assert browser.value("document.querySelectorAll('#about b, #text b').length") == 0
    assert "tiny <b>" in text(browser, "about")
    assert "alert(1)" in text(browser, "token-title")
    browser.size(390, 844)
    for token in range(len(ODD)):
        browser.value(f"document.getElementById('token-{token}').click()")
        assert browser.value("document.documentElement.scrollWidth") <= 390
    prompt = "document.getElementById('text')"
    assert browser.value(f"{prompt}.scrollWidth - {prompt}.clientWidth") == 0


@pytest.mark.parametrize(("layers", "heads", "seq"), [(1, 1, 2), (2, 3, 200), (40, 32, 9)])
def test_any_size_fits_any_window(show, layers, heads, seq):
    browser = show(made(layers, heads, seq))
    for width, dark in ((1280, False), (390, True)):
        browser.size(width, 844, dark=dark)
        browser.until(f"document.documentElement.scrollWidth <= {width}")
        browser.until(f"document.getElementById('map').getBoundingClientRect().width < {width}")
        assert colours(browser.screenshot()) > 50


def test_light_and_dark(show):
    browser = show(made())
    light = browser.screenshot()
    browser.size(1280, 900, dark=True)
    paper = "getComputedStyle(document.body).backgroundColor"
    browser.until(f"{paper} === 'rgb(20, 23, 26)'")
    dark = browser.screenshot()
    assert dark != light
    browser.value("document.getElementById('theme').click()")
    browser.until(f"{paper} === 'rgb(246, 246, 243)'")
    assert browser.screenshot() != dark


def test_everything_to_act_on_has_a_name(show):
    browser = show(made(), "#token=4")
    named = browser.names()
    assert {role for role, _ in named} >= {"slider", "combobox", "button", "listbox", "image"}
    assert [role for role, name in named if not name.strip()] == []


def test_the_page_is_one_file():
    html = page(made(tokens=ODD))
    assert html.count("</script>") == 2
    assert re.findall(r"""(?:src|href)=["'](?!data:)""", html) == []
    data = html.split('id="data">')[1].split("</script>")[0]
    assert json.loads(data)["tokens"] == ODD


@pytest.mark.model
def test_the_demo_models_prompt(show):
    try:
        demo = load("smollm2")
    except BadInput as error:
        if "not installed" in str(error):
            pytest.skip(str(error))
        raise
    ids = encode(demo.tokenizer, "I laughed until my stomach hurt. I wiped away tears.\n").ids
    trace = capture(demo.model, ids[None])
    seen = measure(demo, ids, tags=1)
    browser = show(seen)
    rng = np.random.default_rng(0)
    for _ in range(5):
        layer, head = int(rng.integers(30)), int(rng.integers(9))
        query = int(rng.integers(len(ids)))
        browser.value(f"location.hash = 'layer={layer}&head={head}'")
        browser.until(
            f"document.getElementById('map-title').innerText.endsWith(' {layer}, head {head}')"
        )
        tip = hovered(browser, "map", query, 0)
        assert agrees(last_number(tip), float(trace.pattern[layer, 0, head, query, 0])), tip
    assert text(browser, "text").startswith("<|im_start|>I laughed")
    browser.value(f"document.getElementById('token-{seen.tags.token[0]}').click()")
    changed = seen.tags.changed[0]
    layer, head = (int(i) for i in np.unravel_index(np.argmax(changed), changed.shape))
    assert f"{100 * changed[layer, head]:.1f}%" in hovered(browser, "readers", layer, head)
