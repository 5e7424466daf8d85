"""A certificate for six tokens, checked by the program that shares nothing with the prover."""

from fractions import Fraction

import pytest

from toy.certify.boxes import Statement
from toy.certify.certificate import text_of, write
from toy.certify.check import check
from toy.certify.decimals import Rejected
from toy.certify.prove import prove


def cell(middle, width=Fraction(1, 1000)):
    return tuple(sorted(Fraction(middle) * (1 + sign * width / 2) for sign in (-1, 1)))


def test_a_certificate_is_accepted_and_one_with_a_byte_changed_is_not(tmp_path):
    file = tmp_path / "certificate.json"
    statement = Statement(6, 3, Fraction(1), cell("12"), cell("0.3"), cell("1"), Fraction("0.6"))
    write(file, text_of(prove(statement)))
    assert check(file).leaves > 1
    whole = file.read_bytes()
    for place in range(0, len(whole), 3):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(Rejected):
            check(file)
