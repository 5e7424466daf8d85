"""What a Llama-shaped block does to one token between its linears, in three calls.

Each is a definition in `reference` and a kernel in `cpu` that writes into arrays it is given, so
that a decoding loop allocates nothing a token.
"""

from ctr_kernels.one_token.reference import add_norm as add_norm
from ctr_kernels.one_token.reference import attend as attend
from ctr_kernels.one_token.reference import gate as gate
