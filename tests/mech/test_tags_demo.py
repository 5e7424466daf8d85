"""Catch, tag and cause on the demo model: what earlier measurements found, found again."""

import numpy as np
import pytest
import torch

from experiments.probing import causal
from experiments.probing.effects_of_edits import losses
from experiments.probing.release import marked
from mech.capture import capture_blocks
from mech.edits import Block, Edit, Mean, Remove
from mech.heads import head_weights
from mech.probes.sinks import score
from mech.reach import Sinks, Where
from mech.tokens import encode, windows

pytestmark = [pytest.mark.model, pytest.mark.data]

LAYER, HEAD = 4, 5  # fixed in advance, on other texts
EARLY, LATE = tuple(range(3, 11)), tuple(range(11, 30))
SEQUENCES = 12


@pytest.fixture(scope="module")
def ids(demo, data):
    """Every second window of 128 tokens of the second half of WikiText-2 (raw, test)."""
    text = (data / "wikitext2_raw" / "wiki.test.raw").read_text()
    half = text[len(text) // 2 :][: 16 * 128 * 40]
    return windows(encode(demo.tokenizer, half, bos="require"), 128, 40)[1::2]


@pytest.fixture(scope="module")
def seen(demo, ids):
    """α of every head, and the marks of one head on every sequence."""
    W_O = head_weights(demo.model, LAYER).W_O
    marks = []

    def read(block):
        if block.layer == LAYER:
            marks.extend(marked(block, row, HEAD, W_O, 0.1) for row in range(len(block.z)))
        return score(block.received, block.reach)

    parts = [np.stack(capture_blocks(demo.model, group, read)) for group in ids.split(5)]
    return np.concatenate(parts, axis=1), [mark for mark in marks if mark is not None]


def test_the_head_tags_its_tokens_and_does_not_find_them_tagged(seen, measured):
    marks = seen[1]
    ari = np.mean([mark.writes.ari for mark in marks])
    above = np.mean([mark.writes.eta2 - mark.writes.eta2_contiguous for mark in marks])
    measured("ARI of layer 4 head 5 with its sinks", f"{ari:.2f} (n = {len(marks)})", "0.6")
    measured("its η² above contiguous segments", f"{above:.2f}", "0.25")
    assert len(marks) >= 15
    assert ari >= 0.6
    assert above >= 0.25
    assert np.mean([mark.writes.ari_contiguous for mark in marks]) < 0.3
    assert abs(np.mean([mark.reads.ari for mark in marks])) < 0.1


def test_sinks_matter_as_places_and_their_early_tags_do_not(demo, ids, seen, measured):
    ids = ids[:SEQUENCES]
    late = causal.late_sinks(seen[0][list(EARLY), :SEQUENCES], 0.1)
    both: Sinks = tuple((0, *row) for row in late)
    first: Sinks = ((0,),) * SEQUENCES

    def change(kind, layers, tokens):
        def edits(rows: slice) -> list[Edit]:
            return [kind(Where(layers, tokens[rows]))]

        with torch.no_grad():
            return float((losses(demo.model, ids, edits) - plain).mean())

    plain = losses(demo.model, ids, lambda rows: ())
    removed, blocked = (change(kind, EARLY, both) for kind in (Remove, Block))
    bias = change(Mean, LATE, first)
    measured("nats: early tags removed, their keys blocked", f"{removed:+.3f}, {blocked:+.2f}", "")
    measured("nats: first token's late tag replaced by its mean", f"{bias:+.3f}", "at most 0.08")
    assert abs(removed) <= 0.05
    assert blocked >= 2
    assert abs(bias) <= 0.08
