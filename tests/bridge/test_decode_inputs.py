"""Calibration for decoding: samples, quantiles, histograms, factors."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from bridge.decode.factors import down_up
from bridge.decode.histogram import Histogram, stream
from bridge.decode.inputs import calibrate, quantile
from bridge.decode.plan import Setting
from bridge.decode.reservoir import Reservoir
from bridge.sites import linears
from bridge.stream import hooked
from ctr_kernels.sparse_gemv.reference import active
from mech.errors import BadInput


@torch.no_grad()
def seen(model, batches) -> dict[str, torch.Tensor]:
    """All that every linear reads, token by token: the plain way."""
    found = {name: [] for name in linears(model)}

    def keep(name):
        return lambda _, args, __: found[name].append(args[0].flatten(0, -2).clone())

    with hooked([(linear, "pre", keep(name)) for name, linear in linears(model).items()]):
        for ids in batches:
            model(ids, use_cache=False)
    return {name: torch.cat(rows) for name, rows in found.items()}


def test_a_sample_that_holds_all_tokens_is_all_that_is_read(llama, batches):
    inputs = calibrate(llama, batches)
    for name, rows in seen(llama, batches).items():
        read = inputs.read[name]
        assert torch.equal(read.rows, rows), name
        assert read.seen == len(rows) == 5 * 17
        assert read.places[:, 0].tolist() == list(range(85))
        assert read.places[:, 1].tolist() == list(range(17)) * 5
    block = inputs.read["layers.1.self_attn.q_proj"]
    assert inputs.read["layers.1.self_attn.v_proj"] is block
    assert inputs.read["layers.1.self_attn.o_proj"] is not block
    assert inputs.read["layers.1.mlp.up_proj"] is inputs.read["layers.1.mlp.gate_proj"]


def test_a_small_sample_is_of_the_same_tokens_everywhere_and_seeded(llama, batches):
    full = seen(llama, batches)
    inputs = calibrate(llama, batches, keep=11, seed=3, head=True)
    places = inputs.read["head"].places
    assert len(places) == 11
    for name, rows in full.items():
        assert torch.equal(inputs.read[name].places, places)
        assert torch.equal(inputs.rows(name), rows[places[:, 0]])
    again, other = (calibrate(llama, batches, keep=11, seed=seed) for seed in (3, 4))
    name = "layers.2.mlp.down_proj"
    assert torch.equal(again.rows(name), inputs.rows(name))
    assert not torch.equal(other.rows(name), inputs.rows(name))


def test_excluded_tokens_are_left_out_of_the_sample_and_of_nothing_else(llama, batches):
    exclude = [torch.zeros_like(ids, dtype=torch.bool) for ids in batches]
    for mask in exclude:
        mask[:, 0] = True
    inputs = calibrate(llama, batches, exclude=exclude)
    for name, rows in seen(llama, batches).items():
        later = rows.view(5, 17, -1)[:, 1:].flatten(0, 1)
        assert torch.equal(inputs.rows(name), later)
    with pytest.raises(BadInput, match="a mask of every batch"):
        calibrate(llama, batches, exclude=exclude[:2])
    with pytest.raises(BadInput, match="no calibration token"):
        calibrate(llama, batches, exclude=[torch.ones_like(m) for m in exclude])


def test_every_token_is_as_likely_to_be_kept(generator):
    counts = torch.zeros(60)
    for _ in range(400):
        reservoir = Reservoir(10)
        for part in torch.arange(60).split(7):  # more parts than the reservoir holds at once
            keys = torch.rand(len(part), generator=generator, dtype=torch.float64)
            reservoir.offer(keys, part[:, None].float(), part[:, None].expand(-1, 2))
        rows, _ = reservoir.rows()
        assert len(rows) == 10
        assert reservoir.seen == 60
        counts[rows[:, 0].long()] += 1
    # Binomial: 400 draws at 1/6 each; five standard deviations.
    assert float((counts - 400 / 6).abs().max()) < 5 * (400 / 6 * 5 / 6) ** 0.5


@given(
    values=st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40),
    share=st.floats(0, 1),
)
def test_a_quantile_leaves_its_share_and_not_one_number_more(values, share):
    size = torch.tensor(values).abs()
    t = quantile(size, share)
    below = int((size <= t).sum())
    wanted = -int(-(share * len(size) - 1e-6) // 1)
    assert below >= wanted
    if t >= 0 and share < 1:
        assert int((size < t).sum()) < wanted
    assert (t == -1) == (wanted < 1 and share < 1)
    assert (t == float("inf")) == (share == 1)


def channels_kept(inputs, name, thresholds) -> float:
    return float(active(inputs.rows(name), thresholds).float().mean())


@pytest.mark.parametrize("rule", ["magnitude", "column"])
@pytest.mark.parametrize("alpha", [1.0, 0.7])
def test_thresholds_read_what_the_setting_says(llama, batches, rule, alpha):
    inputs = calibrate(llama, batches)
    for name, linear in linears(llama).items():
        setting = Setting(0.4, alpha, rule)
        thresholds = inputs.thresholds(name, linear.weight, setting)
        n = inputs.rows(name).numel()
        wanted = setting.channels(*linear.weight.shape)
        assert abs(channels_kept(inputs, name, thresholds) - wanted) <= 2 / n
        level = thresholds * (linear.weight.norm(dim=0) if rule == "column" else 1)
        torch.testing.assert_close(level, level[:1].expand_as(level))


def test_nothing_and_everything_can_be_left_out(llama, batches):
    inputs = calibrate(llama, batches)
    name = "layers.0.mlp.up_proj"
    weight = linears(llama)[name].weight.clone()
    weight[:, 3] = 0
    for rule in ("magnitude", "column"):
        assert bool((inputs.thresholds(name, weight, Setting(0, rule=rule)) == -1).all())
        none = inputs.thresholds(name, weight, Setting(1, rule=rule))
        assert bool((none == float("inf")).all())
    assert inputs.thresholds(name, weight, Setting(0.5, rule="column"))[3] == float("inf")
    with pytest.raises(BadInput, match="no calibration token reached it"):
        inputs.rows("layers.0.mlp.nothing")


def test_an_input_that_is_not_finite_is_refused_by_name(llama, batches):
    with torch.no_grad():
        llama.model.layers[1].input_layernorm.weight[0] = float("inf")
    with pytest.raises(BadInput, match=r"layers\.1\.self_attn\.q_proj"):
        calibrate(llama, batches)


@given(
    a=st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=30),
    b=st.lists(st.floats(-(2.0**-130), 2.0**14, width=32), max_size=30),
    share=st.floats(0.01, 0.99),
)
def test_histograms_merge_and_their_quantiles_are_close(a, b, share):
    parts = torch.tensor(a), torch.tensor(b)
    both = Histogram.of(torch.cat(parts))
    merged = Histogram.of(parts[0]).merge(Histogram.of(parts[1]))
    assert torch.equal(both.counts, merged.counts)
    exact, found = quantile(torch.cat(parts).abs(), share), both.quantile(share)
    # Below the least normal number bins are of one width.
    assert abs(found - exact) <= max(2.0**-8 * abs(exact), 2.0**-134)


def test_a_stream_gives_the_thresholds_of_the_sample(llama, batches):
    inputs = calibrate(llama, batches, head=True)
    plan = {name: Setting(0.5, 0.9, "column") for name in list(linears(llama))[::2]}
    plan |= {name: Setting(0.6) for name in list(linears(llama))[1::2]} | {"head": Setting(0.5)}
    streamed = stream(llama, plan, batches)
    for name, setting in plan.items():
        weight = llama.lm_head.weight if name == "head" else linears(llama)[name].weight
        exact = inputs.thresholds(name, weight, setting)
        torch.testing.assert_close(
            streamed.thresholds(name, weight, setting), exact, rtol=2.0**-7, atol=0
        )
    with pytest.raises(BadInput, match="keep no rows"):
        streamed.rows("head")
    with pytest.raises(BadInput, match="stream its plan"):
        streamed.thresholds("head", llama.lm_head.weight, Setting(0.5, rule="column"))


@pytest.mark.parametrize("shape", [(23, 37), (37, 23)])
def test_svd_factors_are_the_best_of_their_rank(shape, generator):
    weight = torch.randn(shape, generator=generator)
    down, up = down_up(weight, 7, "svd")
    left = torch.linalg.svdvals(weight.double())[7:].norm()
    error = (weight.double().mT - down.double() @ up.double()).norm()
    assert down.shape == (shape[1], 7)
    assert float(error) == pytest.approx(float(left), rel=1e-6)


@pytest.mark.parametrize("shape", [(23, 37), (37, 23)])
def test_moment_factors_have_the_least_output_error_on_the_rest(shape, generator):
    weight = torch.randn(shape, generator=generator)
    x = torch.randn(300, shape[1], generator=generator) * torch.rand(shape[1], generator=generator)
    threshold = torch.full((shape[1],), 0.3)
    rest = torch.where(active(x, threshold), 0, x)
    down, up = down_up(weight, 5, "moment", x, threshold, damping=0)
    wanted = rest.double() @ weight.double().mT
    # The Eckart-Young bound of any rank-5 matrix on these rows.
    least = torch.linalg.svdvals(wanted)[5:].norm()
    error = (wanted - rest.double() @ down.double() @ up.double()).norm()
    assert float(error) == pytest.approx(float(least), rel=1e-5)
    plain_down, plain_up = down_up(weight, 5, "svd")
    plain = (wanted - rest.double() @ plain_down.double() @ plain_up.double()).norm()
    assert error < 0.99 * plain


def test_factors_where_there_is_little_to_fit(generator):
    weight = torch.randn(9, 13, generator=generator)
    down, up = down_up(weight, 0, "svd")
    assert (down.shape, up.shape) == ((13, 0), (0, 9))
    x, none = torch.randn(4, 13, generator=generator), torch.full((13,), -1.0)
    same = [a @ b for a, b in (down_up(weight, 3, "svd"), down_up(weight, 3, "moment", x, none))]
    torch.testing.assert_close(same[1], same[0], rtol=1e-4, atol=1e-5)
    zero, _ = down_up(torch.zeros(9, 13), 3, "svd")
    assert bool(zero.isfinite().all())
    with pytest.raises(BadInput, match="rank 10 of a 9 x 13"):
        down_up(weight, 10, "svd")
    with pytest.raises(BadInput, match="calibrate first"):
        down_up(weight, 2, "moment")
