"""A survey as tables: every kind of sink in one, then secondary sinks, heads, and streams."""

from experiments.probing.section_heads import heads
from experiments.probing.section_kinds import every_kind
from experiments.probing.section_secondary import secondary
from experiments.probing.section_streams import streams
from experiments.probing.survey import Survey
from experiments.report import Section


def sections(found: Survey) -> list[Section]:
    """Four sections, in the order in which they are read."""
    return [every_kind(found), secondary(found), heads(found), streams(found)]
