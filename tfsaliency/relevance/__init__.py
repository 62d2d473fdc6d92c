"""Relevance: how each operation of a traced graph passes a score down to its inputs.

The graph between the images and the score is read backwards. Each kind of operation has a rule, and
an operation without one is refused by name.
"""
