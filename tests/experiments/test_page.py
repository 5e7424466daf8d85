"""The interactive page in a real browser: what it shows are the arrays it was made of."""

import numpy as np
import pytest
from browser import Browser, browsing

from experiments.probing.page import PromptPage, page
from experiments.probing.page_codes import ERROR, LEAST, shares

ODD = ["<s>", " a", '"', "'", "</script><script>alert(1)</script>", "&amp;", "\n", "שלום"]
ODD += ["\U0001f469\u200d\U0001f467", "\u202e", "", " ", "{{ x }}", "\x00", "é" * 60, "<!--"]


def made(
    layers: int = 3, heads: int = 5, seq: int = 11, tokens: list[str] | None = None, seed: int = 0
) -> PromptPage:
    """A page of random attention, with token 0 and token 4 its sinks where there are so many."""
    rng = np.random.default_rng(seed)
    tokens = tokens or [f" w{i}" for i in range(seq)]
    seq = len(tokens)
    logits = rng.normal(size=(layers, heads, seq, seq)) * 2
    logits[..., [0, min(4, seq - 1)]] += 3
    logits = np.where(np.tril(np.ones((seq, seq), bool)), logits, -np.inf)
    pattern = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    alpha = pattern.sum(-2) / np.arange(seq, 0, -1)
    sinks = alpha > 0.1
    sinks[..., max(1, seq - 2) :] = False
    depth = (layers + 1, seq)
    return PromptPage(
        model="tiny <b>",
        note="no BOS",
        tokens=tokens,
        epsilon=0.1,
        tail=2,
        pattern=pattern,
        alpha=alpha,
        sinks=sinks,
        head_colour=rng.random((layers, heads, seq, 3)),
        head_share=rng.random((layers, heads)),
        stream_colour=rng.random((*depth, 3)),
        stream_share=rng.random(layers + 1),
        norm=rng.random(depth) * 100 + 1,
        peak=rng.normal(size=depth) * 100,
        peak_dim=rng.integers(0, 64, depth),
        massive=rng.random(depth) > 0.8,
    )


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with browsing(tmp_path_factory.mktemp("profile")) as driven:
        yield driven


def shown(browser: Browser, tmp_path, seen: PromptPage, address: str = "") -> Browser:
    file = tmp_path / "page.html"
    file.write_text(page(seen), encoding="utf-8")
    browser.console.clear()
    browser.size(1280, 900)
    browser.open(f"{file.as_uri()}{address}")
    return browser


def test_shares_come_back_to_the_stated_error():
    p = np.concatenate([np.geomspace(LEAST * 1.0001, 1, 100_003), [0.0, LEAST * 0.999, 1 + 1e-7]])
    code = shares(p).astype(float)
    back = np.where(code == 0, 0, 2 ** ((code - 65535) / 4096))
    exact = p[:-3]
    assert np.abs(back[:-3] / exact - 1).max() <= ERROR * (1 + 1e-6)
    assert back[-3:].tolist() == [0, 0, 1]


def test_it_opens_without_errors_or_requests(browser, tmp_path):
    browser = shown(browser, tmp_path, made())
    assert browser.console == []
    assert [url for url in browser.requests if not url.startswith("data:")] == [
        (tmp_path / "page.html").as_uri()
    ]


@pytest.mark.parametrize(("layers", "heads", "seq"), [(1, 1, 2), (2, 3, 200), (40, 32, 9)])
def test_any_size_fits_the_window(browser, tmp_path, layers, heads, seq):
    browser = shown(browser, tmp_path, made(layers, heads, seq))
    for width in (1280, 390):
        browser.size(width, 844)
        browser.until(f"document.documentElement.scrollWidth <= {width}")
    assert browser.console == []
