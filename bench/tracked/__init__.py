"""What asv times from commit to commit, for `nox -s bench`: only names of the public contract, so that it runs on old
commits too. Processor time of one thread: other programs on the machine lengthen it less than a clock's.
"""
