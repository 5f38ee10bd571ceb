"""What the code runs on: checked arguments, threads, memory that is used again, progress.

The innermost ring of Python: it knows the kernels and nothing else of the package; everyone may import it.
"""
