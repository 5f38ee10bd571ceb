"""Pictures, tables and HTML pages from arrays, numbers and words; independent of explanations and models.

May import data and runtime; every outer ring may import it.
"""
