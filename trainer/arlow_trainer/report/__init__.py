"""The report page of a run, and its plots.

Import from the modules: plots need matplotlib.
"""
