"""Pictures, tables and pages of arrays, numbers and words: nothing here knows an explanation or a model.

May import data and runtime; every outer ring may import it.
"""
