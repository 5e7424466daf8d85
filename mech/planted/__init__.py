"""Language models with known sinks, tags and outliers, put in by hand: to test probes on.

    from mech.planted.build import planted
    model, tokens, plan = planted(seed=7)

`plan` says what is planted where, `mech.planted.expect` what follows from it (attention, sinks,
what the reader reads), `mech.planted.weights` by which formulas. Nothing is trained.
"""
