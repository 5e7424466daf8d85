"""What a quantiser left becomes rows without a rounding, and decodes through them."""

import pytest
import torch

from bridge.compress import compressed
from bridge.decode.inputs import calibrate
from bridge.decode.plan import Setting
from bridge.decode.recipe import fit
from bridge.decode.rows import code_rows, coded
from bridge.decode.sparsified import sparsified
from bridge.fold import folded
from bridge.methods.gptq import GPTQ
from bridge.quantized import Quantized
from bridge.quantizers import MXINT, RoundToNearest
from bridge.sites import linears, place
from mech.errors import BadInput


@pytest.mark.parametrize(
    "quantizer",
    [
        RoundToNearest(4, 128, symmetric=False),
        RoundToNearest(4, 7),
        RoundToNearest(3, 16),
        RoundToNearest(2, None, symmetric=False),
        MXINT(4, 8),
    ],
)
def test_codes_are_the_operators_own(quantizer, generator):
    weight = torch.randn(37, 50, generator=generator)
    operator: Quantized = quantizer(weight)
    rows = code_rows(operator)
    assert torch.equal(rows.matrix().mT, operator.matrix())


def test_codes_of_more_bits_are_refused(generator):
    with pytest.raises(BadInput, match="8 bits"):
        code_rows(RoundToNearest(8, 16)(torch.randn(3, 32, generator=generator)))


@torch.no_grad()
def test_a_quantised_model_decodes_through_its_codes(llama, batches):
    with compressed(llama, GPTQ(RoundToNearest(4, 16, symmetric=False)), batches):
        rows = coded(llama)
        place(llama, folded(llama))
        recipe = fit(llama, dict.fromkeys(rows, Setting(0.5, 0.9)), calibrate(llama, batches))
        said = []
        for through in (rows, None):
            with sparsified(llama, recipe, rows=through) as decoding:
                assert set(decoding.backends.values()) == {"cpu"}
                past, logits = None, []
                for piece in (batches[0][:, :13], *batches[0][:, 13:].split(1, 1)):
                    out = llama(piece, past_key_values=past, use_cache=True)
                    past = out.past_key_values
                    logits.append(out.logits)
            said.append(torch.cat(logits, 1))
    assert rows.keys() == linears(llama).keys()
    torch.testing.assert_close(said[0], said[1], rtol=1e-4, atol=1e-4)


def test_a_model_without_codes_is_one_line(llama):
    with pytest.raises(BadInput, match="quantised"):
        coded(llama)
