"""Building blocks of behaviour trees in py_trees: goals as leaves, recovery, small leaves."""
