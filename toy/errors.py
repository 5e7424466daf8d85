"""What the theorem does not cover, by name: each refusal says what was given and what to do."""


class Refused(ValueError):
    """The statement has a hypothesis that this input does not meet."""


class NoSegment(Refused):
    """No number follows [SEP], or [SEP] is not in the sequence: the target is a mean of nothing."""


class NonPositiveQuery(Refused):
    """The guaranteed query `d (s - 1) / (1 + rho) - |b| X` is not positive: nothing is proved."""


class NotCausal(Refused):
    """A query sees a later key: numbers before [SEP] are tagged too and the mean is another one."""


class ScaleTooSmall(Refused):
    """`s_tag <= 1`: [SEP] does not stand out, so that no tag is positive."""


class NotFinite(Refused):
    """A NaN or an infinity where the theorem speaks of real numbers."""


class NoMagnitude(Refused):
    """The bound X on the numbers is not positive."""
