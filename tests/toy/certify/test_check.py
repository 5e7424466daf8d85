"""The checker accepts what is proved, and refuses everything else, however well it is sealed."""

import ast
import decimal
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.toy.certify.cases import statement
from toy.certify import check as checker
from toy.certify import compare, decimals, prove
from toy.certify.certificate import check_free, decimal_text, text_of, write
from toy.certify.check import KEYS, check, sealed
from toy.certify.decimals import Rejected
from toy.certify.intervals import Interval
from toy.errors import Refused

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def text():
    """A certificate of some leaves, on the box and the cell of the acceptance."""
    return text_of(prove.prove(statement(fraction="0.7")))


@pytest.fixture
def judged(tmp_path):
    """Check a text, or a content that is sealed first."""

    def judge(given):
        file = tmp_path / "certificate.json"
        if isinstance(given, dict):
            given = sealed({key: given[key] for key in KEYS[:-1] if key in given})
        file.write_bytes(given if isinstance(given, bytes) else given.encode())
        return check(file)

    return judge


def test_a_proof_is_confirmed(text, judged):
    found = judged(text)
    assert (found.T, found.t, found.X) == (6, 3, 1)
    assert found.s[1] - found.s[0] == (found.s[0] + found.s[1]) / 2 / 1000
    assert found.leaves > 10
    assert 0.5 < found.ratio <= found.fraction < 0.71


@pytest.mark.parametrize(
    "settings",
    [
        {"width": "0.3"},
        {"T": 7, "t": 6, "d": "0.5"},
        {"T": 2, "t": 1, "d": "0.5"},
        {"T": 8, "t": 1, "b": "-0.7"},
        {"s": "100000", "b": "0"},
        {"X": "2", "s": "16", "width": "0"},
        {"s": "5", "b": "3", "width": "0.01"},
    ],
)
def test_what_the_prover_proves_the_checker_confirms(settings, judged):
    assert judged(text_of(prove.prove(statement(**settings)))).ratio <= 1


def test_one_byte_changed_is_refused(text, judged):
    """Every byte in turn: flipped in one bit, replaced by a digit, taken out, and doubled."""
    whole, rng = text.encode(), np.random.default_rng(0)
    for place in range(len(whole)):
        before, byte, after = whole[:place], whole[place : place + 1], whole[place + 1 :]
        flipped = bytes([byte[0] ^ 1 << rng.integers(7)])
        digit = b"%d" % ((byte[0] + 1) % 10)
        for other in ([flipped], [digit], [b""], [byte * 2])[place % 4]:
            with pytest.raises(Rejected):
                judged(before + other + after)


def changed(text, **fields):
    return json.loads(text) | fields


LIES = {
    "a sharper statement": {"fraction": "0.6"},
    "half of the bound": {"fraction": "0.3"},
    "larger numbers": {"X": "1.5"},
    "a wider cell": {"s": ["10", "14"]},
    "a stronger query": {"b": ["0.2", "9"]},
    "another length": {"T": 7},
    "another separator": {"t": 2},
    "no numbers after it": {"t": 6},
    "no separator": {"t": 0},
    "no magnitude": {"X": "0"},
    "a scale of one": {"s": ["1", "12.006"]},
    "no tag": {"d": ["0", "1.0005"]},
    "two signs that cancel": {"s": ["0.4", "0.5"], "b": ["0", "0"], "d": ["-2", "-1"]},
    "a query that turns": {"d": ["0.01", "1.0005"]},
    "ends in the wrong order": {"s": ["12.006", "11.994"]},
    "not a number": {"s": ["NaN", "12.006"]},
    "an infinite end": {"s": ["11.994", "Infinity"]},
    "an infinite magnitude": {"X": "inf"},
    "a scale beyond the format": {"s": ["11.994", "1e999999"]},
    "a number, not its digits": {"X": 1},
    "true": {"T": True},
    "one end": {"b": ["0.3"]},
    "three ends": {"b": ["0.29985", "0.3", "0.30015"]},
    "a long sequence": {"T": 100_000_000},
    "digits of another script": {"X": "\u0661"},
    "no leaf": {"leaves": {}},
    "a list of leaves": {"leaves": []},
    "another schema": {"schema": checker.SCHEMA + "0"},
    "another statement": {"statement": checker.STATEMENT.replace("<=", "<")},
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_that_is_sealed_again_is_refused_by_the_mathematics(lie, text, judged):
    with pytest.raises(Rejected):
        judged(changed(text, **LIES[lie]))


def test_the_hypothesis_is_part_of_the_statement(text, judged):
    """Where q_lo < 0 the formula may exceed 2 X: |f - m| <= B is true then, and says nothing."""
    lie = changed(text, d=["0.01", "0.01"], fraction="1", leaves={"": "1"})
    with pytest.raises(Rejected, match="q_lo > 0 does not hold"):
        judged(lie)


def test_every_leaf_is_needed(text, judged):
    leaves = json.loads(text)["leaves"]
    for missing in leaves:
        rest = {path: claim for path, claim in leaves.items() if path != missing}
        with pytest.raises(Rejected, match="do not fill"):
            judged(changed(text, leaves=rest))


def test_leaves_that_overlap_are_refused(text, judged):
    leaves = json.loads(text)["leaves"]
    path = max(leaves, key=len)
    above, axis = path.rsplit(" ", 1)
    for more in (above, f"{path} x1-", f"{above} b-", "", f"{above} {axis[:-1]}", f"{path} "):
        with pytest.raises(Rejected, match="do not fill"):
            judged(changed(text, leaves={**leaves, more: "0.7"}))


@pytest.mark.parametrize("step", ["x3-", "x7-", "q-", "-", "x6*", "x6", "T+"])
def test_a_step_along_no_axis_is_refused(step, text, judged):
    with pytest.raises(Rejected, match="do not fill"):
        judged(changed(text, leaves={step: "0.7", step[:-1] + "+": "0.7"}))


def test_a_leaf_that_claims_less_than_is_true_is_refused(text, judged):
    leaves = json.loads(text)["leaves"]
    for path in list(leaves)[:3]:
        less = f"{float(leaves[path]) * 0.999:.8f}"
        with pytest.raises(Rejected, match="may reach"):
            judged(changed(text, leaves={**leaves, path: less}))
    path = next(iter(leaves))
    for claim in ("0.700000001", "NaN", "-0.1", "0.5e0", 0.5, None, ["0.5"]):
        with pytest.raises(Rejected):
            judged(changed(text, leaves={**leaves, path: claim}))


def test_a_prover_that_halves_what_it_finds_is_not_confirmed(monkeypatch, judged):
    """0.45 of the bound is false; a wrong prover, its search switched off, writes it down."""
    honest = compare.ratio
    monkeypatch.setattr(
        compare, "ratio", lambda *case: Interval(honest(*case).lo, honest(*case).hi / 2)
    )
    monkeypatch.setattr(prove, "refute", lambda *case: None)
    wrong = text_of(prove.prove(statement(fraction="0.45")))
    with pytest.raises(Rejected, match="may reach"):
        judged(wrong)


def test_a_saturated_box_is_refused(judged, text):
    """e^-s^2 is below the least number of the arithmetic: nothing is said, rather than 0 = 0."""
    for cell in (["900000000", "900000001"], ["999999999", "999999999"]):
        lie = changed(text, s=cell, d=["1000", "1000"], leaves={"": "0.7"})
        with pytest.raises(Rejected, match="exponential is lost"):
            judged(lie)


def test_a_file_that_is_no_certificate_is_refused(tmp_path, judged, text):
    for given in (
        "",
        "{}",
        "[]",
        "null",
        '"a"',
        "{" * 100_000,
        "[" * 100_000,
        text[:-1],
        text + " ",
    ):
        with pytest.raises(Rejected):
            judged(given)
    for given in (b"\xff\xfe", b"\x00" * 100, "é".encode()):
        with pytest.raises(Rejected):
            judged(given)
    for path, said in ((tmp_path, "not an ordinary file"), (tmp_path / "missing", "not there")):
        with pytest.raises(Rejected, match=said):
            check(path)


def test_a_file_that_is_too_large_is_not_read(judged, text, monkeypatch):
    monkeypatch.setattr(checker, "LARGEST", len(text) - 1)
    with pytest.raises(Rejected, match="bytes"):
        judged(text)


def test_the_checker_imports_nothing_of_the_prover():
    for name in ("check", "decimals"):
        tree = ast.parse((ROOT / "toy" / "certify" / f"{name}.py").read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [node.module or ""]
            else:
                continue
            for module in modules:
                standard = module.split(".")[0] in sys.stdlib_module_names
                assert standard or module == "toy.certify.decimals", module


def run_alone(file):
    """The checker in a Python that has no other package."""
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c",
         f"import sys, runpy; sys.path.insert(0, {str(ROOT)!r}); sys.argv[1:] = [{str(file)!r}]; "
         "runpy.run_module('toy.certify.check', run_name='__main__')"],
        capture_output=True, text=True,
    )  # fmt: skip


def test_the_checker_runs_by_itself(tmp_path, text):
    file = tmp_path / "certificate.json"
    file.write_text(text)
    done = run_alone(file)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("proved: for all x in [-X, X]^T")
    file.write_text(text.replace("0.7", "0.5", 1))
    done = run_alone(file)
    assert done.returncode == 1
    assert done.stderr.startswith("refused: ")
    assert len(done.stderr.splitlines()) == 1


def test_equal_proofs_have_equal_bytes(text):
    assert text_of(prove.prove(statement(fraction="0.7"))) == text


@pytest.mark.parametrize(
    ("value", "digits"),
    [
        ("12", "12"),
        ("0.5", "0.5"),
        ("-0.05", "-0.05"),
        ("100", "100"),
        ("0", "0"),
        ("1.25", "1.25"),
    ],
)
def test_numbers_are_written_exactly(value, digits):
    from fractions import Fraction

    assert decimal_text(Fraction(value)) == digits
    assert checker.number(digits) == Fraction(value)


@pytest.mark.parametrize("value", ["1/3", "1e9", "1e-41"])
def test_a_number_that_the_format_cannot_hold_is_refused(value):
    from fractions import Fraction

    with pytest.raises(Refused):
        decimal_text(Fraction(value))


def test_only_a_certificate_is_replaced(tmp_path, text):
    file = tmp_path / "certificate.json"
    write(file, text)
    write(file, text)
    assert file.read_text() == text
    assert list(tmp_path.iterdir()) == [file]
    with pytest.raises(Rejected):
        write(file, text.replace("0.7", "0.5", 1))
    assert file.read_text() == text
    mine = tmp_path / "mine.txt"
    mine.write_text("a letter")
    link = tmp_path / "link.json"
    link.symlink_to(file)
    for taken in (mine, tmp_path, link, tmp_path / "missing" / "certificate.json"):
        with pytest.raises(Refused):
            write(taken, text)
        with pytest.raises(Refused):
            check_free(taken)
    assert mine.read_text() == "a letter"


def test_an_exponential_is_rounded_outwards_on_both_sides():
    """To the nearest, as `decimal` has it, about half of the ends would be on the wrong side."""
    wide = decimal.Context(prec=3 * decimals.DIGITS)
    for number in range(-40, 40):
        value = wide.divide(number, 7)
        found = decimals.Span(*[decimals.DOWN.plus(value)] * 2)
        exact = wide.exp(found.lo)
        assert found.exp().lo <= exact <= found.exp().hi
