"""pi0 and pi0.5: PaliGemma, and a Gemma of a few hundred million parameters that acts."""
