"""Diffusion Policy: a one-dimensional U-Net that denoises a chunk of actions."""
