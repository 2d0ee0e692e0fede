"""Why an engine died, by rule: ``diagnose`` reads the ``Scene`` that a dead engine left and gives a ``Diagnosis``.

    Scene (log, exit status, what the host says) ──> RULES, the first that sees its signs ──> Diagnosis (cause, evidence, what to change)

Only when the engine died, never before: a log that looks bad is no death.
"""
