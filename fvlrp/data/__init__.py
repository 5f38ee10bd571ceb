"""Photographs, data sets, labels and files: what comes from outside and goes back there.

May import runtime alone; every outer ring may import it.
"""
