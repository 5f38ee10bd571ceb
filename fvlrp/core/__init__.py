"""What both stacks share: the layer protocol, rules, the ledger, traces and explanations.

May import evaluate, show, data and runtime. Imported by the two stacks, models and the command line.
"""
