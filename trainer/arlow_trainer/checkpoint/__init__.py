"""The run's life in a store: its lease, its events and its checkpoints.

Import from the modules: only `saver` and `export` need torch, and listing needs neither.
"""
