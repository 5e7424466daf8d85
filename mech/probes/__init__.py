"""Measurements on a trace: sinks, massive activations, outlier features, segments.

These are measurements and nothing is trained; "probe" means no linear classifier here. Each is
a pure function of numpy arrays and runs unchanged on the toy's trace and a language model's.
"""
