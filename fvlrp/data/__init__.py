"""Input and output: photographs, data sets, labels and files.

May import only runtime; every outer ring may import it.
"""
