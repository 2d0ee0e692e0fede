"""The world that the demo model knows: pictures and clips of coloured shapes, signs and screens, with questions and true answers.

Everything is drawn and asked from one seeded random generator, so a seed names a whole data set. ``examples.make`` gives one
example; the trainer reads them without end, the evaluation takes those of seeds that training never sees.
"""
