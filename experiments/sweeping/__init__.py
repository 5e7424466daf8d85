"""Any experiment over a grid of its options, on one machine or many: `ctr sweep`."""
