"""The robot as the policy sees it: its contract, its streams, their alignment, its limits."""
