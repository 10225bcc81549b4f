"""Checkpoints of a run in a store: saving, finding, verifying, exporting and deleting them.

Import from the modules: only `saver` and `export` need torch, and listing needs neither.
"""
