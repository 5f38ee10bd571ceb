"""The one idea, for both stacks: the layer protocol, rules as values, the ledger, traces and explanations.

May import evaluate, show, data and runtime; is imported by the two stacks, models and the command line.
"""
