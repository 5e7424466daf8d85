"""The demo model, SmolLM2-135M-Instruct (Q4_1): exactness, memory, and what is known of it."""

import subprocess
import sys
from typing import NamedTuple

import numpy as np
import pytest
import torch
from jaxtyping import Bool, Float

import mech.gguf
from mech.capture import capture, capture_blocks
from mech.load import load
from mech.probes.massive import is_massive, massive, peaks
from mech.probes.outliers import prevalence
from mech.probes.sinks import SinkCount, count_sinks, guarded, score, sinks
from mech.tokens import encode, windows

pytestmark = pytest.mark.model

WINDOWS, SEQ = 16, 128


def test_streaming_is_eager(demo, generator, measured):
    model = demo.model
    tokens = torch.randint(3, 49152, (2, 67), generator=generator)
    own = model.config._attn_implementation
    trace = capture(model, tokens)
    received = capture_blocks(model, tokens, lambda block: block.received)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        eager = model(tokens, output_attentions=True, output_hidden_states=True)
    model.set_attn_implementation(own)
    pattern = torch.stack(eager.attentions).numpy()
    np.testing.assert_allclose(trace.pattern, pattern, atol=1e-5)
    worst = float(np.abs(trace.pattern - pattern).max())
    measured("streaming against eager attention, demo model, 2 × 67 tokens", worst, "1e-5")
    np.testing.assert_allclose(np.stack(received), pattern.sum(axis=-2), atol=67e-5, rtol=0)
    # The last of the hidden states has been through the final norm, and is none of ours.
    for depth, state in enumerate(eager.hidden_states[:-1]):
        scale = float(state.abs().max())
        np.testing.assert_allclose(trace.resid[depth], state, atol=1e-5 * scale, rtol=0)
    last = torch.from_numpy(trace.resid[-1])
    with torch.no_grad():
        assert torch.allclose(model.model.norm(last), eager.hidden_states[-1], atol=1e-3)


def test_it_is_not_dequantised_again(demo, monkeypatch):
    def never(*_):
        raise AssertionError("it was dequantised again")

    monkeypatch.setattr(mech.gguf, "_dequantise", never)
    again = load("smollm2")
    assert again.sha256 == demo.sha256


def test_memory_at_4096_tokens(demo, measured):
    """One pattern would be 9 · 4096² floats, 0.6 GB, all of them 18 GB, the logits 0.8 GB.

    The peak of a few of the thirty blocks is the peak of all, which is what the second bound
    says: it is half of what the arrays of eight more blocks would take, 8 · 38 MB. Not
    ru_maxrss: a process inherits that from the one that started it.
    """
    program = """
import re, sys
from pathlib import Path
import torch
from mech.load import load
from mech.capture import capture_blocks

torch.set_num_threads(1)
model = load("smollm2").model

def kilobytes(what):
    return 1024 * int(re.search(what + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

now = kilobytes("VmRSS")
tokens = torch.randint(3, 49152, (1, 4096), generator=torch.Generator().manual_seed(0))
layers = model.model.layers
for count in (4, 12):
    model.model.layers = layers[:count]
    model.config.num_hidden_layers = count
    sums = capture_blocks(model, tokens, lambda block: float(block.received.sum()))
    peak = kilobytes("VmHWM")
    sys.stdout.write(f"{peak - now} {min(sums)} {max(sums)} ")
"""
    if not sys.platform.startswith("linux"):
        pytest.skip("reads /proc")
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    few, _, _, more, least, most = map(float, done.stdout.split())
    found = f"{more / 1e9:.2f} GB (12 blocks), {few / 1e9:.2f} GB (4 blocks)"
    measured("peak above the model, capture of blocks at 4,096 tokens", found, "1.5 GB")
    assert more < 1.5e9
    assert more - few < 1.5e8
    # Every one of 9 · 4096 rows sums to one.
    assert abs(least - 9 * 4096) < 1
    assert abs(most - 9 * 4096) < 1


class Seen(NamedTuple):
    alpha: Float[np.ndarray, "layer batch head key"]
    resid: Float[np.ndarray, "depth batch seq d_model"]

    def each(self) -> list[SinkCount]:
        """The counts of each sequence by itself."""
        return [count_sinks(self.alpha[:, i : i + 1]) for i in range(WINDOWS)]

    def near_massive(self) -> Bool[np.ndarray, "depth batch seq"]:
        """Tokens with an activation above 100 and 100 medians: also those of the first phase."""
        return np.any(is_massive(self.resid, ratio=100.0), axis=-1)


@pytest.fixture(scope="module")
def seen(demo, data) -> Seen:
    """16 windows of BOS and 127 tokens of WikiText-2 (raw, test)."""
    text = (data / "wikitext2_raw" / "wiki.test.raw").read_text()
    tokens = windows(encode(demo.tokenizer, text, bos="require"), SEQ, WINDOWS)
    blocks = capture_blocks(demo.model, tokens, lambda b: (score(b.received), b))
    resid = [blocks[0][1].resid_pre, *(block.resid_post for _, block in blocks)]
    return Seen(np.stack([alpha for alpha, _ in blocks]), np.stack(resid))


def low(values):
    """The lower end of a 99.8 % interval of the mean over 16 sequences (t = 3.7, 15 freedoms)."""
    return np.mean(values) - 3.7 * np.std(values, ddof=1) / np.sqrt(len(values))


@pytest.mark.data
@pytest.mark.parametrize(
    ("field", "published"),
    [("total_raw", 829), ("later_raw", 605), ("later", 233)],
)
def test_counts_are_those_measured_before(seen, field, published, measured):
    """On the tokenised release of the same test set, 16 windows too."""
    counts = [getattr(each, field).sum() for each in seen.each()]
    # Both figures are means over 16 sequences of about the same spread.
    spread = np.std(counts, ddof=1) * np.sqrt(2 / WINDOWS)
    found = f"{np.mean(counts):.1f} ± {spread:.1f} (n = {WINDOWS})"
    measured(f"sinks a sequence, {field}, WikiText-2", found, f"{published} within noise")
    assert abs(np.mean(counts) - published) < 3.7 * spread


@pytest.mark.data
def test_first_token_sinks_in_most_heads(seen):
    assert low([each.first.sum() for each in seen.each()]) >= 200
    assert seen.alpha.shape[0] * seen.alpha.shape[2] == 270


@pytest.mark.data
def test_late_sinks_are_of_early_layers(seen):
    later = [each.later.sum(axis=1) for each in seen.each()]
    assert low([layers[3:11].sum() / layers.sum() for layers in later]) >= 0.65


@pytest.mark.data
def test_the_massive_activation(seen):
    found = peaks(seen.resid)
    assert (found.ratio[12:21] >= 5000).all()
    assert (found.token[12:21] == 0).all()
    assert (found.dim[12:21] == 507).all()
    everywhere = massive(seen.resid)
    assert set(everywhere.token) == {0}
    assert everywhere.depth.min() == 12


@pytest.mark.data
def test_outlier_features_are_those_of_all_ordinary_tokens(seen):
    share = prevalence(seen.resid, ~seen.near_massive())
    assert (share[3:21, [247, 507]] >= 0.95).all()
    # And of few others: the median dimension of 576 is an outlier nowhere.
    assert (np.median(share[3:21], axis=1) < 0.01).all()


@pytest.mark.data
def test_massive_late_tokens_are_the_late_sinks(seen):
    layers = slice(3, 11)
    caught = sinks(seen.alpha)[layers][..., guarded(SEQ)]
    heavy = seen.near_massive()[layers, :, None, :][..., guarded(SEQ)]
    heavy = np.broadcast_to(heavy, caught.shape)
    assert caught[heavy].mean() >= 100 * caught[~heavy].mean()
    assert caught[heavy].mean() >= 0.5
