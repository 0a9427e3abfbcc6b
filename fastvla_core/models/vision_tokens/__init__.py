"""Fewer visual tokens, and what need not be computed again: options, scores, selection, memory."""
