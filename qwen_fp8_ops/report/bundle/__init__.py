"""The support bundle: one .tar.gz that tells somebody far away what is wrong here, and no secret of this machine.

``archive`` writes it, ``parts`` lists what goes in, ``mask`` takes the secrets out. Nothing that is broken here may keep it from being
made: what could not be had is named in its README.txt.
"""
