"""What ACT and Diffusion Policy share: cameras and joints in, actions out, and no instruction."""
