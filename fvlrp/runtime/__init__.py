"""Infrastructure: checks of arguments, threads, reused memory, limits of the machine, progress.

The innermost Python ring: depends on nothing but the kernels; every module may import it.
"""
