"""The report page of a run and its curves.

Import from the modules: the plots need matplotlib.
"""
