"""ACT: a residual network and a small transformer that predicts a whole chunk at once."""
