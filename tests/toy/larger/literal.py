"""The larger toy once more, token by token in float64 numpy, straight from its formulas."""

import numpy as np


def norm(shape, w, which, row):
    if not shape.norm:
        return row
    row = row - row.mean()
    return row / np.sqrt((row * row).mean() + 1e-5) * w.norm_scale[which] + w.norm_shift[which]


def run(shape, w, x, t):
    """One sequence: the output, the stream at every depth, patterns [layer head query key]."""
    rows = [x_i * w.E_slope + w.E_number for x_i in x]
    rows[t - 1] = w.E_sep
    if shape.positions:
        rows = [row + p for row, p in zip(rows, w.P, strict=False)]
    depths, patterns = [np.array(rows)], []
    per_layer = 2 if shape.mlp else 1
    for layer in range(shape.layers):
        read = [norm(shape, w, layer * per_layer, row) for row in rows]
        pattern = np.zeros((shape.heads, len(x), len(x)))
        written = []
        for i, row in enumerate(rows):
            total = row.astype(np.float64)
            for h in range(shape.heads):
                M = w.W_Q[layer, h] @ w.W_K[layer, h].T / np.sqrt(shape.d_head)
                p = np.exp([read[i] @ M @ read[k] for k in range(i + 1)])
                p /= p.sum()
                pattern[h, i, : i + 1] = p
                gathered = sum(a * row for a, row in zip(p, read, strict=False))
                total = total + gathered @ w.W_V[layer, h] @ w.W_O[layer, h]
            if shape.mlp:
                hidden = norm(shape, w, layer * 2 + 1, total) @ w.W_in[layer] + w.b_in[layer]
                total = total + np.where(hidden > 0, hidden, 0) @ w.W_out[layer]
            written.append(total)
        rows = written
        depths.append(np.array(rows))
        patterns.append(pattern)
    f = norm(shape, w, shape.norms - 1, rows[-1]) @ w.W_U + w.b_U
    return f, np.array(depths), np.array(patterns)
