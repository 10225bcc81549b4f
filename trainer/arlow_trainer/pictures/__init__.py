"""Pictures of a run: reconstructions, curves and the report page.

Import from the modules: only some need torch, and only the curves need matplotlib.
"""
