"""Pictures of reconstructions: original, masked and reconstructed images and clips.

Import from the modules: only some need torch.
"""
