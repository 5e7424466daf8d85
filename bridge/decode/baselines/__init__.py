"""What R-Sparse is compared with: TEAL, CATS, GRIFFIN, ReLU in several phases, one term alone."""
