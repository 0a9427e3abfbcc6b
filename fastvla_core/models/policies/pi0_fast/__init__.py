"""pi0-FAST: PaliGemma that writes its actions as tokens."""
