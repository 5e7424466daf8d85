"""Catch, tag, release and interventions on them: plants are found, words say what tables show."""

import numpy as np
import pytest
import torch
import transformers

from experiments.intervals import Interval, interval
from experiments.probing import causal, causal_words, release, repeats
from experiments.probing.causal import BOTH, LATE, Plan, Row
from experiments.probing.effects_of_edits import Watched, losses, outcome
from experiments.probing.release import FEWEST, Head, choose, marked, measure
from experiments.probing.released import look
from mech.capture import capture_blocks
from mech.edits import Block, Remove
from mech.probes import agreement
from mech.reach import Where
from mech.trace import BlockTrace, Heads

SEQ, D_HEAD, D_MODEL = 70, 5, 11
PLANTED = (0, 20, 45)


def planted(seed: int, *, alike: bool) -> BlockTrace:
    """One head whose tokens look at the last sink before them; its values are alike or not."""
    generator = np.random.default_rng(seed)
    at = np.arange(SEQ)
    sink = np.array([max(s for s in PLANTED if s <= q) for q in at])
    strength = generator.uniform(5, 9, (SEQ, 1))  # no drift with the position
    logits = np.where(at == sink[:, None], strength, 0.0)
    logits[at[:, None] < at] = -np.inf
    # Logits as products: a one-hot query for every row of them.
    query = np.eye(SEQ, dtype=np.float32)[None, None]
    key = np.maximum(logits, -1e3).T[None, None].astype(np.float32)
    lse = np.log(np.exp(logits).sum(axis=1))[None, None].astype(np.float32)
    value = generator.normal(size=(SEQ, D_HEAD)) * 0.1
    value[list(PLANTED)] = np.ones(D_HEAD) if alike else 3 * np.eye(D_HEAD)[:3]
    pattern = np.exp(logits - lse[0, 0][:, None])
    z = (pattern @ value)[None, None]
    resid = generator.normal(size=(1, SEQ, D_MODEL))
    low, high = np.zeros((1, SEQ), dtype=np.int64), at[None]
    heads = Heads(query, key, value[None, None].astype(np.float32), lse, low, high, 1.0, None)
    return BlockTrace(
        layer=2, real=np.ones((1, SEQ), dtype=bool), resid_pre=resid, resid_post=resid,
        attn_write=None, mlp_write=None, received=pattern.sum(axis=0)[None, None],
        reach=(SEQ - at)[None], missing=np.zeros((1, 1)), z=z, heads=heads,
    )  # fmt: skip


W_O = np.random.default_rng(0).normal(size=(1, D_HEAD, D_MODEL)).astype(np.float32)


def test_a_planted_head_catches_and_tags_its_segments():
    found = marked(planted(0, alike=False), 0, 0, W_O, 0.1)
    assert found is not None
    # exp(7) or so against at most 70.
    assert found.share > 0.85
    assert found.part == pytest.approx(1, abs=0.2)
    assert found.writes.ari > 0.95 > 0.6 > found.writes.ari_contiguous
    assert abs(found.reads.ari) < 0.1
    wanted = [-1, *[0] * 19, -1, *[1] * 24, -1, *[2] * 24]
    assert found.labels.tolist() == wanted


def test_what_is_told_of_a_head_is_what_its_vectors_say():
    """Norm, share and cosines from A v W_O itself, by the definitions."""
    block = planted(0, alike=False)
    found = marked(block, 0, 0, W_O, 0.1)
    assert found is not None
    heads, at = block.heads, np.arange(SEQ)
    logits = heads.query[0, 0] @ heads.key[0, 0].T
    pattern = np.exp(np.where(at[:, None] < at, -np.inf, logits) - heads.lse[0, 0][:, None])
    value = heads.value[0, 0] @ W_O[0]
    parts = pattern[:, PLANTED, None] * value[list(PLANTED)]  # [query, sink, d_model]
    kept = found.labels >= 0
    size = np.linalg.norm(block.resid_pre[0], axis=1)
    norm = np.linalg.norm(parts, axis=-1).max(axis=1) / size
    assert found.norm == pytest.approx(np.median(norm[kept]), rel=1e-4)
    whole = block.z[0, 0] @ W_O[0]
    share = (parts.sum(axis=1) * whole).sum(axis=1) / (whole**2).sum(axis=1)
    assert found.part == pytest.approx(np.median(share[kept]), rel=1e-4)
    unit = value / np.linalg.norm(value, axis=1, keepdims=True)
    first, one, two = unit[list(PLANTED)]
    assert found.later == pytest.approx(one @ two, abs=1e-5)
    assert found.first == pytest.approx((first @ one + first @ two) / 2, abs=1e-5)
    singular = np.linalg.svd(W_O[0])[1]
    share = singular / singular.sum()
    assert found.rank == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-5)


def test_sinks_with_one_value_leave_no_tag_that_tells_them_apart():
    found = marked(planted(0, alike=True), 0, 0, W_O, 0.1)
    assert found is not None
    assert found.later == pytest.approx(1)
    assert found.writes.ari < 0.5


def test_a_head_without_two_sinks_is_no_case():
    block = planted(0, alike=False)
    uniform = block._replace(received=np.full_like(block.received, 0.01))
    assert marked(uniform, 0, 0, W_O, 0.1) is None


def test_the_stream_is_read_at_every_depth_and_too_few_sequences_are_none():
    cases = [marked(planted(seed, alike=False), 0, 0, W_O, 0.1) for seed in range(FEWEST)]
    generator = np.random.default_rng(0)
    states = generator.normal(size=(4, FEWEST, SEQ, D_MODEL))
    for index, case in enumerate(cases):
        assert case is not None
        states[2, index] += 5 * np.eye(4, D_MODEL)[case.labels]
    found = measure([(2, 0)], [cases], states)
    assert found.curve is not None
    assert found.curve.n == found.judged == FEWEST
    released = found.curve.ari[:, 1] > 0.2
    assert released.tolist() == [False, False, True, False]
    # Above the null of the same tokens, sequence by sequence.
    for depth in range(4):
        grouped = [
            agreement.survival(
                states[depth : depth + 1, i, c.labels >= 0], c.labels[c.labels >= 0], draws=30
            )[0]
            for i, c in enumerate(cases)
            if c is not None
        ]
        above = np.array([(g.eta2 - g.eta2_contiguous, g.ari - g.ari_contiguous) for g in grouped])
        np.testing.assert_allclose(found.curve.eta2[depth, 0], above[:, 0].mean())
        np.testing.assert_allclose(found.curve.ari[depth, 0], above[:, 1].mean())
    section = release.section(found)
    assert "a tag beyond neighbourhood is shown." in section.text[0]
    differences = [c.writes.ari - c.writes.ari_contiguous for c in cases if c is not None]
    assert found.heads[0].ari_above == interval(np.array(differences))
    assert f"{found.heads[0].ari_above} above random segments" in section.text[0]
    # Planted sinks stand at the same places in every sequence: the position says it all.
    assert found.readout is not None
    assert found.readout.position.mean == 1
    assert found.readout.at[0].depth == 2
    assert found.readout.at[0].accuracy.mean > 0.9
    assert len(section.tables[0].columns) == len(section.tables[0].rows[0])
    few = measure([(2, 0)], [[*cases[:-1], None]], states)
    assert few.heads == []
    assert few.curve is None
    assert f"two sinks in {FEWEST} of the {FEWEST} judged" in release.section(few).text[0]


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.01, 0.6, "is shown."),
        (-0.01, 0.6, "is not shown."),
        (-0.6, -0.01, "less than neighbourhood does."),
    ],
)
def test_the_paired_difference_says_whether_there_is_a_tag(low, high, said):
    """ARI 0.435 [0.105, 0.766] and 0.089 [0.032, 0.154] overlap, which says nothing."""
    cases = [marked(planted(seed, alike=False), 0, 0, W_O, 0.1) for seed in range(FEWEST)]
    states = np.random.default_rng(1).normal(size=(3, FEWEST, SEQ, D_MODEL))
    found = measure([(2, 0)], [cases], states)
    head = found.heads[0]._replace(
        ari=Interval(0.435, 0.105, 0.766, 6),
        ari_contiguous=Interval(0.0887, 0.0323, 0.154, 6),
        ari_above=Interval((low + high) / 2, low, high, 6),
    )
    text = release.section(found._replace(heads=[head], curve=None)).text
    assert len(text) == 1
    assert text[0].endswith(said)


@pytest.mark.parametrize(("judged", "said"), [(0, "0 judged sequences"), (1, "1 judged sequence,")])
def test_fewer_sequences_than_are_asked_for_are_named(judged, said):
    text = release.section(release.Released([], None, judged)).text[0]
    assert text.startswith(said)
    assert "6 of the" not in text


def test_heads_are_chosen_by_their_guarded_later_sinks():
    scores = np.zeros((3, 2, 4, SEQ))
    scores[1, :, 2, 30] = 0.4
    scores[2, 0, 3, 10] = 0.5
    scores[0, :, :, 0] = scores[0, :, :, SEQ - 3] = 0.9
    scores[0, :, 1, 5] = 0.09
    assert choose(scores, 0.1, 4) == [(1, 2), (2, 3)]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=59, hidden_size=24, intermediate_size=28, num_hidden_layers=5,
        num_attention_heads=4, num_key_value_heads=2, initializer_range=0.4,
        head_dim=12, max_position_embeddings=128,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


@pytest.fixture
def ids(generator):
    return torch.randint(3, 59, (7, 41), generator=generator)


PLAN = Plan(
    early=(1, 2),
    after=(3, 4),
    late=((3, 9), (5,), (), (7, 12, 20), (4, 8), (6, 7), (9, 11)),
    first=((0,),) * 7,
    both=((0, 3, 9), (0, 5), (0,), (0, 7, 12, 20), (0, 4, 8), (0, 6, 7), (0, 9, 11)),
    random=((5, 12), (9,), (), (3, 4, 30), (6, 9), (8, 9), (2, 3)),
    random_both=((5, 12, 13), (9, 8), (1,), (3, 4, 30, 31), (6, 9, 10), (8, 9, 11), (2, 3, 4)),
)


def test_every_trial_runs_and_is_paired_with_the_untouched_model(model, ids):
    ids = ids[:3]
    labels = [*[np.repeat([-1, 0, 1], [1, 20, 20])] * 2, None]
    watched = Watched(PLAN.both[:3], 1, 2, 3, labels)
    trials = [*causal.trials(PLAN), *causal.by_head(PLAN, [(1, 2)])]
    plain, rows = causal.table(model, ids, trials, watched, lambda _: None)
    assert [row.edit for row in rows] == [trial.edit for trial in trials]
    with torch.no_grad():
        own = model(ids, labels=ids).loss
    assert plain.nll.mean() == pytest.approx(float(own), rel=1e-5)
    found = {(row.column, row.edit): row for row in rows}
    losses = {(row.column, row.edit): row.nll for row in rows if row.nll is not None}
    assert len(losses) == len(rows)
    assert all(nll.n == 3 for nll in losses.values())
    # The watched head is in layer 1, and its groups are looked for behind layer 3.
    assert [row.ari is None for row in rows] == [trial.layers[0] > 1 for trial in trials]
    assert all(row.release is not None and row.release.n == 2 for row in rows)
    behind = causal.by_head(PLAN, [(4, 1)])
    assert all(
        row.ari is row.release is row.mass is None
        for row in causal.table(model, ids, list(behind), watched, lambda _: None)[1]
    )
    # Late sinks removed cannot cost what is not there: sequence 2 has none, the others do.
    assert found[LATE, "remove"].nll != found[LATE, "block the key"].nll
    assert found[BOTH, "remove"].nll != found[LATE, "remove"].nll
    half, none, double = (
        losses[LATE, name].mean for name in ("scale by 0.5", "remove", "scale by 2")
    )
    assert len({half, none, double}) == 3
    section = causal_words.causal_section(rows, rows[-2:], PLAN, losses[LATE, "remove"], "a text")
    assert len(section.tables[0].rows) == len(rows)
    assert "1 to 2" in section.text[0]
    assert "3 to 4" in section.text[0]


def test_what_is_measured_is_what_a_capture_says(model, ids):
    watched = Watched(PLAN.both, 1, 2, 3, [None] * 7)
    found = outcome(model, ids, lambda rows: (), watched)
    received = np.stack(capture_blocks(model, ids, lambda block: block.received))
    for row, sinks in enumerate(PLAN.both):
        wanted = received[:, row][:, :, list(sinks)].sum(axis=-1).mean(axis=1) / 41
        np.testing.assert_allclose(found.mass[:, row], wanted, rtol=1e-4)
    assert np.isnan(found.ari).all()


def test_losses_are_edited_by_the_sequences_own_sinks(model, ids):
    late = PLAN.late
    plain = losses(model, ids, lambda rows: ())
    after = losses(model, ids, lambda rows: [Remove(Where((1,), late[rows]))])
    np.testing.assert_allclose(after[2], plain[2], atol=1e-5)  # no sinks
    for row in (0, 1, 3, 4, 5, 6):
        first = late[row][0]
        np.testing.assert_allclose(after[row, :first], plain[row, :first], atol=1e-5)
        assert np.abs(after[row] - plain[row]).max() > 1e-3


def test_copies_are_scored_apart(model, ids):
    found = repeats.measure(model, ids, PLAN, 0.1, lambda _: None)
    assert found[0].edit == "untouched"
    assert found[0].first.mean == pytest.approx(found[0].second.mean, abs=2)
    # Its 18 sinks leave heads of 12 no room: that control is left out, and nothing else.
    assert [row.edit for row in found if "random direction" in row.edit] == []
    assert len(found) == repeats.PASSES - 2
    rare = repeats.measure(model, ids, PLAN, 0.9, lambda _: None)
    assert len(rare) == repeats.PASSES - 1
    assert rare[2].edit == "… random direction of equal norm"
    assert repeats.measure(model, ids[:, :40], PLAN, 0.1, lambda _: None)[0].first.n == 7
    assert len(causal_words.repeats_section(found).tables[0].rows) == len(found)


def test_the_plan_comes_from_scores_alone():
    even = np.zeros((6, 3, 2, SEQ))
    even[1:3, :, :, 30] = 0.5
    even[4, 0, 0, 31] = 0.5
    even[5, :, :, 0] = even[5, :, :, -1] = 0.9
    odd = np.zeros((6, 2, 2, SEQ))
    odd[1:3, 0, :, 12] = 0.5
    odd[4, :, :, 15] = odd[1, :, :, -1] = 0.9
    plan = causal.plan(even, odd, 0.1, 0)
    assert plan.early == (1, 2)
    assert plan.after == (3, 4, 5)
    assert plan.late == ((12,), ())
    assert plan.both == ((0, 12), (0,))
    assert [len(row) for row in plan.random] == [1, 0]
    assert 12 not in plan.random[0]
    assert 0 not in plan.random_both[1]


def row(column: str, edit: str, mean: float, half: float = 0.01) -> Row:
    found = Interval(mean, mean - half, mean + half, 9)
    return Row(column, edit, False, found, found, None, None)


@pytest.mark.parametrize(
    ("removed", "control", "blocked", "supported", "place"),
    [(0.0, 0.1, 3.0, False, True), (0.5, 0.1, 0.6, True, False), (0.1, 0.1, 0.1, False, False)],
)
def test_the_verdict_says_what_the_intervals_allow(removed, control, blocked, supported, place):
    rows = [
        row(column, edit, value)
        for column in (LATE, BOTH)
        for edit, value in (
            ("remove", removed),
            ("remove: random direction of equal norm", control),
            ("block the key", blocked),
        )
    ]
    for line in causal_words.verdict(rows):
        assert ("more than any change of their size" in line) == supported
        assert ("is not supported" in line) != supported
        assert ("as places for attention do matter" in line) == place


def test_a_model_is_looked_at_whole(model, ids):
    long = torch.cat([ids, ids], dim=1)[:, :80].repeat(2, 1)
    scores = np.zeros((5, 14, 4, 80))
    scores[2, ::2, 1, 30] = 0.5
    found = look(model, long, scores, 0.1, lambda _: None, heads=2)
    assert found.places == [(2, 1)]
    assert len(found.seen[0]) == 7 == found.released.judged
    assert isinstance(found.released.heads, list)
    assert all(isinstance(head, Head) for head in found.released.heads)
    nothing = look(model, long, np.zeros((5, 14, 4, 80)), 0.1, lambda _: None)
    assert nothing.released.judged == 7
    assert nothing.released.heads == []


def test_blocking_costs_the_head_its_own_groups(model, ids):
    labels = [np.repeat([-1, 0, 1], [1, 20, 20])] * 7
    watched = Watched(PLAN.first, 1, 2, 3, labels)
    plain = outcome(model, ids, lambda rows: (), watched)
    after = outcome(model, ids, lambda rows: [Block(Where((1,), PLAN.first[rows]))], watched)
    assert np.abs(after.ari - plain.ari).max() > 0
    # The edited layer's own attention is that before the edit; what follows it is changed.
    np.testing.assert_array_equal(after.mass[:2], plain.mass[:2])
    assert np.abs(after.mass[2:] - plain.mass[2:]).max() > 1e-4
