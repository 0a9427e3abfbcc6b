"""Building blocks shared by every policy; the only users of `fastvla_core.kernels`."""
