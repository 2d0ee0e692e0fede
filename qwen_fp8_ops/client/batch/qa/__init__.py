"""Visual question answering: questions from a table, answers from a service, read by a convention that never guesses, and counted.

    tables ──> questions ──> asks ──> (the common engine) ──> verdicts ──> metrics
                  │                                              │
        choices, image_field                     extraction, open_answers

Everything but ``tables`` (reads a file), ``questions`` (looks whether images exist) and ``report`` (shows images) is pure.
"""
