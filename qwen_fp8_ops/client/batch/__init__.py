"""Whole data sets against one OpenAI-compatible API: every item is answered once, whatever dies on the way.

``item`` holds what goes in and what comes out. ``run`` asks; ``journal`` keeps each answer as it comes; ``publish`` makes the result
out of the journal. None of them knows what is asked: ``captions`` and ``qa`` do.
"""
