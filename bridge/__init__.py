"""Interventions on real language models: compress, switch terms off, measure again.

Importing this package is also what makes `from_pretrained` read the packed form.
"""

from bridge.plugin import announce

announce()
