"""The one exception for input that a person can mend."""


class InputError(ValueError):
    """Bad input, said in one clear sentence: what is wrong and what to do.

    The command line prints it and exits with 2; anything else that is raised is a bug.
    Parameters stand in backticks, as `force=True` or `volume_index=3`; the command line puts
    its options in their place.
    """
